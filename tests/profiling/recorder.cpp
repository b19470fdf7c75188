// A tool that NVTX loads, as it does Nsight's: writes every range that opens and closes to the file SPARSEBLOCK_RECORD.
#include <nvtx3/nvToolsExt.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace {

FILE *file = nullptr;

void write(const char *event, nvtxDomainHandle_t domain, const char *text) {
    std::fprintf(file, "%s\t%s\t%s\n", event, reinterpret_cast<const std::string *>(domain)->c_str(), text);
    std::fflush(file);
}

// A handle is whatever the tool says it is: here, what it stands for.
nvtxDomainHandle_t create_domain(const char *name) { return reinterpret_cast<nvtxDomainHandle_t>(new std::string(name)); }

nvtxStringHandle_t register_string(nvtxDomainHandle_t, const char *text) {
    return reinterpret_cast<nvtxStringHandle_t>(new std::string(text));
}

int push(nvtxDomainHandle_t domain, const nvtxEventAttributes_t *event) {
    const bool registered = event->messageType == NVTX_MESSAGE_TYPE_REGISTERED;
    write("push", domain,
          registered ? reinterpret_cast<const std::string *>(event->message.registered)->c_str() : event->message.ascii);
    return 0;
}

int pop(nvtxDomainHandle_t domain) {
    write("pop", domain, "");
    return 0;
}

} // namespace

extern "C" int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t export_table) {
    const auto *callbacks = static_cast<const NvtxExportTableCallbacks *>(export_table(NVTX_ETID_CALLBACKS));
    NvtxFunctionTable table;
    unsigned size;
    if (!callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &table, &size)) return 0;
    const auto set = [&](NvtxCallbackIdCore2 id, auto *function) {
        *table[id] = reinterpret_cast<NvtxFunctionPointer>(function);
    };
    set(NVTX_CBID_CORE2_DomainCreateA, create_domain);
    set(NVTX_CBID_CORE2_DomainRegisterStringA, register_string);
    set(NVTX_CBID_CORE2_DomainRangePushEx, push);
    set(NVTX_CBID_CORE2_DomainRangePop, pop);
    file = std::fopen(std::getenv("SPARSEBLOCK_RECORD"), "w");
    return file != nullptr;
}
