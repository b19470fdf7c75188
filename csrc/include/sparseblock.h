/* sparseblock: block-sparse operators over cached feature maps, plain C interface.
 *
 * The one contract of every operator, for any list of active blocks:
 *
 *     op(x, blocks, out)  ==  where(active, dense_op(x), out)
 *
 * Active blocks of `out` receive what the dense operator would give on the same input. Every other element of `out`
 * keeps its bits. A block's value does not depend on which other blocks are active, on their order, or on the number
 * of threads. Block coordinates are in blocks of the operator's output; the last row and column of blocks may be
 * partial: writes are clipped to the valid frame.
 *
 * Nothing here allocates, except per-thread scratch on first use, and nothing here checks its arguments: callers
 * validate (see sparseblock/ops). All strides are in elements, all sizes in pixels. Pointers need no alignment.
 */
#ifndef SPARSEBLOCK_H
#define SPARSEBLOCK_H

#ifdef __CUDACC_RTC__ /* the device compiler at run time has no headers */
typedef signed int int32_t;
typedef signed long int64_t;
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long uint64_t;
#else
#include <stdint.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__CUDACC_RTC__)
#define SB_API __device__ /* declared alone, but it must be something of a device */
#elif defined(__GNUC__)
#define SB_API __attribute__((visibility("default")))
#else
#define SB_API
#endif

/* How the elements of a plane are stored. Kernels compute in float32 and round what they store once, to nearest even. */
typedef enum sb_dtype { SB_F32 = 0, SB_BF16 = 1, SB_F16 = 2 } sb_dtype;

/* A feature map [n, h, w, c]; the channel stride is 1 unless stride_c says otherwise (only sb_pointwise
 * reads inputs whose stride_c is not 1, e.g. an NCHW frame). `border` pixels on every side of each image may be read
 * and hold zeros; operators never write them. A slice of channels is a plane too: data moved, c smaller, same strides. */
typedef struct sb_plane {
    void *data; /* element (n=0, y=0, x=0, c=0) of the valid frame */
    int64_t stride_n, stride_y, stride_x, stride_c;
    int32_t n, h, w, c;
    int32_t border;
    int32_t dtype; /* sb_dtype; all planes of one operator have the same */
} sb_plane;

/* Active blocks: index[i] = (n, y, x) for i < *count, in blocks; a block is block_h x block_w pixels of the output. A list
 * may be a part of a longer one that is run part by part. Then kernels may choose by the whole of it how to store, and fetch
 * ahead what the next part reads; neither changes a value. */
typedef struct sb_blocks {
    const int32_t *index; /* [capacity][3] */
    const int32_t *count;
    int32_t block_h, block_w;
    int32_t whole; /* blocks of the longer list; 0: this is all of it */
    int32_t next;  /* that many more of index[*count...] are run next by this thread */
    int32_t again; /* not 0: what is written is read again at once, so it is not stored past the caches */
} sb_blocks;

typedef enum sb_activation {
    SB_IDENTITY = 0,
    SB_RELU = 1,
    SB_CLAMP = 2,     /* min(max(v, low), high); ReLU6 is the one to [0, 6] */
    SB_PRELU = 3,     /* v > 0 ? v : v * slope[c]; leaky ReLU is a constant slope */
    SB_ELU = 4,       /* v > 0 ? v : slope[c] * (e^v - 1) */
    SB_SIGMOID = 5,   /* 1 / (1 + e^-v) */
    SB_TANH = 6,
    SB_SILU = 7,      /* v * sigmoid(v) */
    SB_GELU = 8,      /* v * (1 + erf(v / sqrt(2))) / 2 */
    SB_GELU_TANH = 9, /* v * (1 + tanh(sqrt(2 / pi) * (v + 0.044715 v^3))) / 2 */
    SB_MISH = 10,     /* v * tanh(log(1 + e^v)) */
    SB_SOFTPLUS = 11, /* log(1 + e^v) */
    SB_HARDSIGMOID = 12, /* min(max(v + 3, 0), 6) / 6 */
    SB_HARDSWISH = 13,   /* v * hardsigmoid(v) */
} sb_activation;

/* How a kernel takes in its second input, the residual. */
typedef enum sb_combine { SB_ADD = 0, SB_MULTIPLY = 1 } sb_combine;

/* What a kernel does to a value before it stores it:  activation((value + residual) * scale[c] + shift[c]), or
 * activation(value * residual * scale[c] + shift[c]). Any pointer may be NULL. A conv's bias is `bias`, added first. */
typedef struct sb_epilogue {
    const float *bias;  /* [c] */
    const float *scale; /* [c] */
    const float *shift; /* [c] */
    const float *slope; /* [c], PReLU and ELU */
    int32_t activation; /* sb_activation */
    int32_t combine;    /* sb_combine */
    float low, high;    /* clamp */
} sb_epilogue;

/* What lies outside of a map, as in PyTorch's padding modes: a constant (zero in a convolution), the map mirrored at its first
 * and last pixel, these pixels repeated, or the map's other side. */
typedef enum sb_pad_mode { SB_PAD_CONSTANT = 0, SB_PAD_REFLECT = 1, SB_PAD_REPLICATE = 2, SB_PAD_CIRCULAR = 3 } sb_pad_mode;

/* conv2d: out[n,k,y,x] = epilogue( sum_{c,r,s} w[k,c,r,s] * x[n,c, y*stride_h - pad_h + r*dilation_h,
 *                                                             x*stride_w - pad_w + s*dilation_w] ), outside as pad_mode says.
 * pad_h and pad_w are at the top and on the left; the size of `out` tells how much is read below and on the right.
 * `transposed` != 0: conv_transpose2d with the same meaning of the fields as in PyTorch (weight [c, k/groups, r, s]).
 * `algorithm`: how the sum is taken; all have the same meaning, each its own rounding. Winograd's F(2x2, 3x3) and F(4x4, 3x3)
 * exist for 3x3 kernels of stride 1 and one group, constant padding, not transposed; a NaN or infinity spreads
 * within a tile. Pairs and AMX: weights rounded to bfloat16, and dot products of two channels, or of two of a pixel's inputs in
 * tiles of 32; planes must be SB_BF16, not transposed, groups of an even number of input channels, or for AMX one group or groups of more
 * than one; sb_conv2d_has says whether the processor has the instructions, and has to be asked before AMX runs. */
typedef enum sb_algorithm { SB_DIRECT = 0, SB_WINOGRAD_2X2 = 1, SB_WINOGRAD_4X4 = 2, SB_PAIRS = 3, SB_AMX = 4 } sb_algorithm;
typedef struct sb_conv2d {
    int32_t in_channels, out_channels, groups;
    int32_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
    int32_t transposed, pad_mode; /* sb_pad_mode; transposed: constant */
    int32_t algorithm;            /* sb_algorithm; read when weights are packed, which know it from then on */
    const float *packed_weight; /* from sb_conv2d_pack */
} sb_conv2d;

/* Pooling as in PyTorch, pads as in sb_conv2d. Maximum: outside counts as `outside`, which is -infinity in PyTorch. Average: the sum over the window divided by `divisor`,
 * or where divisor is 0 by the number of elements, counting padding when count_include_pad is set. `adaptive` != 0: output i of
 * o along an axis of s pixels takes [floor(i s / o), ceil((i + 1) s / o)), and the fields of windows are not read. */
typedef enum sb_pool { SB_POOL_MAX = 0, SB_POOL_AVG = 1 } sb_pool;
typedef struct sb_pool2d {
    int32_t kind; /* sb_pool */
    int32_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
    int32_t count_include_pad, divisor, adaptive;
    float outside;
} sb_pool2d;

/* Resize as in PyTorch's interpolate. scale = input pixels per output pixel along the axis. */
typedef enum sb_resize { SB_NEAREST = 0, SB_BILINEAR = 1 } sb_resize;
typedef struct sb_interpolate {
    int32_t mode; /* sb_resize */
    int32_t align_corners;
    float scale_h, scale_w;
} sb_interpolate;

/* Statistics of a whole map, kept from block to block: the map is cut into cells of block_h x block_w pixels (the last row and
 * column may be partial), and a plane [n, rows, cols, order * c] holds of every cell the mean [c] and, with order 2, the sum
 * of squared deviations from it [c]. Who changes a cell's pixels computes that cell anew; totals are summed over all
 * cells in one order, so nothing drifts. */
typedef struct sb_moments {
    int32_t height, width; /* of the map */
    int32_t block_h, block_w, order;
} sb_moments;

/* Group normalization: (x - mean) / sqrt(variance + eps) over the frame and c / groups channels. */
typedef struct sb_group_norm {
    sb_moments moments; /* order 2 */
    int32_t groups;
    float eps;
} sb_group_norm;

/* What brings the channels of every pixel to one scale: softmax; division by their L2 norm, or by eps where that is larger; or
 * layer normalization over them, (x - mean) / sqrt(variance + eps). */
typedef enum sb_channel_norm_kind { SB_SOFTMAX = 0, SB_UNIT_LENGTH = 1, SB_UNIT_VARIANCE = 2 } sb_channel_norm_kind;
typedef struct sb_channel_norm {
    int32_t kind; /* sb_channel_norm_kind */
    float eps;    /* not of softmax */
} sb_channel_norm;

/* Norms of the cells of a map, block_h x block_w pixels and all channels of them: how much there is, or changed. The sum of
 * magnitudes, the root of the sum of squares, or the largest magnitude; NaN is larger than any. */
typedef enum sb_norm { SB_NORM_L1 = 0, SB_NORM_L2 = 1, SB_NORM_MAX = 2 } sb_norm;
typedef struct sb_block_norm {
    int32_t norm; /* sb_norm */
    int32_t block_h, block_w;
} sb_block_norm;

/* out[n, y, x] = x[n, y - top, x - left], outside as the mode says; a constant may crop too: top, left below zero. */
typedef struct sb_pad {
    int32_t mode; /* sb_pad_mode */
    int32_t top, left;
    float value; /* of a constant */
} sb_pad;

/* Elements in another order, as in PyTorch. pixel_shuffle: pixel (y, x), channel c of the output is channel
 * (c * factor + y % factor) * factor + x % factor of pixel (y / factor, x / factor); pixel_unshuffle is its inverse.
 * channel_shuffle: channel j * factor + i is channel i * (c / factor) + j, in `factor` groups. */
typedef enum sb_shuffle_kind { SB_PIXEL_SHUFFLE = 0, SB_PIXEL_UNSHUFFLE = 1, SB_CHANNEL_SHUFFLE = 2 } sb_shuffle_kind;
typedef struct sb_shuffle {
    int32_t kind; /* sb_shuffle_kind */
    int32_t factor;
} sb_shuffle;

/* The instruction set the kernels were dispatched to: "avx512", "avx2", "neon" or "generic". Chosen once, from the processor or
 * from the environment variable SPARSEBLOCK_ISA. NULL where that names one that the processor or the build lacks: then
 * sb_isa_problem says so in one line (else it is NULL) and no operator may be called, they would abort with that line.
 * sb_set_isa chooses another, NULL the best; it returns 0, or -1 and changes nothing where there is no such. */
SB_API const char *sb_isa(void);
SB_API const char *sb_isa_problem(void);
SB_API int sb_set_isa(const char *name);

/* Elements that sb_conv2d_pack writes for this conv, and the packing itself. `weight` is contiguous, [k, c/groups, r, s]
 * (transposed: [c, k/groups, r, s]). The packed form is private to this process; it runs on the
 * instruction set that was chosen when it was packed, whatever sb_set_isa chooses later. */
SB_API int sb_conv2d_has(int algorithm); /* whether the instruction set in force computes it */
SB_API int64_t sb_conv2d_packed_size(const sb_conv2d *conv);
SB_API void sb_conv2d_pack(const sb_conv2d *conv, const float *weight, float *packed);

/* Takes memory out of the processor's caches, for measurements: in a frame weights come from memory, whatever read them before. */
SB_API void sb_evict(const void *data, int64_t bytes);

/* The operators. `residual` may be NULL; it has the shape of `out` and may be `out` itself. One pixel that counts for the whole
 * frame is a plane whose stride_y and stride_x are 0, one channel that counts for all one whose stride_c is 0. `threads` >= 1.
 * `blocks` NULL: every pixel (not for gather and scatter). Convolutions, and sb_pointwise_run with a residual, bias, scale or shift, count
 * subnormal numbers as zero, whatever the caller's floating-point mode, which they leave as it was. */
SB_API void sb_conv2d_run(const sb_conv2d *conv, const sb_epilogue *epilogue, const sb_plane *x, const sb_plane *residual,
                          const sb_blocks *blocks, const sb_plane *out, int threads);
SB_API void sb_pool2d_run(const sb_pool2d *pool, const sb_plane *x, const sb_blocks *blocks, const sb_plane *out, int threads);
SB_API void sb_interpolate_run(const sb_interpolate *resize, const sb_plane *x, const sb_blocks *blocks, const sb_plane *out,
                               int threads);
/* out = epilogue(x): copies, adds, multiplies, folds a lone batch norm, applies an activation, converts NCHW to NHWC. */
SB_API void sb_pointwise_run(const sb_epilogue *epilogue, const sb_plane *x, const sb_plane *residual, const sb_blocks *blocks,
                             const sb_plane *out, int threads);
/* out [n, rows, cols, order * c]: the moments of the cells of x. A block is block_h x block_w pixels of `out`, that is cells. */
SB_API void sb_block_moments_run(const sb_moments *moments, const sb_plane *x, const sb_blocks *blocks, const sb_plane *out,
                                 int threads);
/* out [n, rows, cols, 1], SB_F32: the norms of the cells of x, or where y is not NULL of x - y. Blocks as of sb_block_moments_run. */
SB_API void sb_block_norm_run(const sb_block_norm *norm, const sb_plane *x, const sb_plane *y, const sb_blocks *blocks,
                              const sb_plane *out, int threads);
/* out [n, 1, 1, c]: the mean of the map whose moments (of order 1) x holds. */
SB_API void sb_global_avg_pool2d_run(const sb_moments *moments, const sb_plane *x, const sb_blocks *blocks, const sb_plane *out,
                                     int threads);
/* out = epilogue(x normalized by the current moments, a plane of order 2): scale and shift are the norm's weight and bias. */
SB_API void sb_group_norm_run(const sb_group_norm *norm, const sb_epilogue *epilogue, const sb_plane *x, const sb_plane *moments,
                              const sb_blocks *blocks, const sb_plane *out, int threads);
/* out = epilogue(x, its channels normalized), bias and residual left out; x may be `out` itself. */
SB_API void sb_channel_norm_run(const sb_channel_norm *norm, const sb_epilogue *epilogue, const sb_plane *x, const sb_blocks *blocks,
                                const sb_plane *out, int threads);
SB_API void sb_pad_run(const sb_pad *pad, const sb_plane *x, const sb_blocks *blocks, const sb_plane *out, int threads);
SB_API void sb_shuffle_run(const sb_shuffle *shuffle, const sb_plane *x, const sb_blocks *blocks, const sb_plane *out, int threads);
/* Gradients, of the active blocks of grad_out alone, summed in the order of the list; all planes SB_F32. Of conv2d with respect
 * to weight, [k][r][s][c/groups], and bias, [k] or NULL, both overwritten (conv->transposed is 0; packed_weight is not read);
 * with respect to its input it is sb_conv2d_run, transposed. Of pooling and resizing they are added to grad_x; x is read for
 * maxima only. */
SB_API void sb_conv2d_weight_grad_run(const sb_conv2d *conv, const sb_plane *x, const sb_plane *grad_out,
                                      const sb_blocks *blocks, float *grad_weight, float *grad_bias, int threads);
SB_API void sb_pool2d_input_grad_run(const sb_pool2d *pool, const sb_plane *x, const sb_plane *grad_out, const sb_blocks *blocks,
                                     const sb_plane *grad_x, int threads);
SB_API void sb_interpolate_input_grad_run(const sb_interpolate *resize, const sb_plane *grad_out, const sb_blocks *blocks,
                                          const sb_plane *grad_x, int threads);
/* packed[i] = x at block i with `halo` more pixels on every side, zeros outside of the frame. packed is
 * [capacity, block_h + 2*halo, block_w + 2*halo, c], contiguous, of the plane's dtype. scatter writes packed blocks (halo 0) into out. */
SB_API void sb_gather_run(const sb_plane *x, const sb_blocks *blocks, int halo, void *packed, int threads);
SB_API void sb_scatter_run(const void *packed, const sb_blocks *blocks, const sb_plane *out, int threads);
/* Small maps beside a network, on one thread. Area averages of x over windows of window x window pixels, clipped to the frame, to out [n][c][rows][cols]; past
 * the frame the nearest average is repeated. Returns whether all of them are finite. x of any strides, SB_F32. */
SB_API int sb_area_mean_run(const sb_plane *x, int window, float *out, int rows, int cols);
/* Mean and variance of each of c channels of n floats. */
SB_API void sb_channel_moments_run(const float *x, int c, int64_t n, float *mean, float *variance);
/* The mean over the pixels of |a - b|^2 in units of the mean of |a|^2 + |b|^2, of pictures of c channels of n floats less each
 * channel's mean. A pixel counts for `most` at most. 0 where both are flat. */
SB_API float sb_picture_distance_run(const float *a, const float *b, int c, int64_t n, float most);
/* out [rows][cols][c]: the pixels of x, one image of any strides, SB_F32, at these rows and columns. */
SB_API void sb_sample_run(const sb_plane *x, const int64_t *ys, int rows, const int64_t *xs, int cols, float *out);

/* What a policy network reads of rows x cols blocks, each of side x side pixels of a small picture. */
typedef struct sb_policy_inputs {
    const float *frame, *executed; /* [channels][rows * side][cols * side]: the picture now, and as each block last ran */
    const float *mean, *deviation; /* [channels]: both are read as (x - mean) / deviation */
    const uint8_t *active;         /* [rows][cols]: the blocks that ran in the last frame */
    const int64_t *age;            /* [rows][cols]: frames since */
    int32_t channels, rows, cols, side;
    int32_t logarithms; /* features are log-probabilities, read as p - 0.5 and as their uncertainty; else as x - 0.5 */
    float momentum;     /* of the running mean `level` of |frame - executed|, NaN where there is none yet; 1 keeps it */
} sb_policy_inputs;
/* features [k][rows * m][cols * m], where m divides side: of the network's last output. Into pixels [rows * side][cols * side][2 *
 * channels + 1 + k + 1], summary [3, or with logarithms 4][rows][cols], and level. */
SB_API void sb_policy_inputs_run(const sb_policy_inputs *inputs, const sb_plane *features, float *pixels, float *summary, float *level);

/* A policy network: convolutions of 4x4 pixels, stride 2 and padding 1, each with ReLU, that bring the pixels of a block down to
 * one, and a linear function of that and of the summary, within (-bound, bound) by a hyperbolic tangent. Parameters, one after
 * another: of each convolution weight [k][c][4][4] and bias [k], then weights of the last map and of the summary, and a bias. */
#define SB_POLICY_LAYERS 3
typedef struct sb_policy {
    int32_t rows, cols, side; /* side = 2^SB_POLICY_LAYERS */
    int32_t channels, summaries, widths[SB_POLICY_LAYERS];
    float bound;
} sb_policy;
/* maps: of every convolution [h][w][k], one after another. logits [rows][cols]. Gradients overwrite grad_parameters. */
SB_API void sb_policy_logits_run(const sb_policy *policy, const float *parameters, const float *pixels, const float *summary,
                                 float *maps, float *logits);
SB_API void sb_policy_logits_grad_run(const sb_policy *policy, const float *parameters, const float *pixels, const float *summary,
                                      const float *maps, const float *logits, const float *grad_logits, float *grad_parameters);
/* mask [n, rows, cols] of bytes -> index in (n, y, x) order and the count. */
SB_API void sb_blocks_from_mask(const uint8_t *mask, int n, int rows, int cols, int32_t *index, int32_t *count);

/* A list of active blocks without their size: the steps of a plan that share one have maps of different strides. */
typedef struct sb_list {
    const int32_t *index; /* as in sb_blocks */
    const int32_t *count;
} sb_list;

/* A frame in one call: the steps of a plan, in order. Planes and lists are numbered; a state owns the table of planes. */
typedef enum sb_op {
    SB_OP_CONV2D = 0,
    SB_OP_POOL2D = 1,
    SB_OP_INTERPOLATE = 2,
    SB_OP_POINTWISE = 3,
    SB_OP_BLOCK_MOMENTS = 4,
    SB_OP_GLOBAL_AVG_POOL2D = 5,
    SB_OP_GROUP_NORM = 6, /* `residual` is the plane of moments */
    SB_OP_PAD = 7,
    SB_OP_SHUFFLE = 8,
    SB_OP_CHANNEL_NORM = 9,
} sb_op;
#define SB_LONGEST_CHAIN 16
/* What lasts of a map whose memory does not: of each block the rows and columns along its edges that are seen from its neighbours,
 * whose readers look so many pixels above, below, to the left and to the right of a block. Of blocks the planes keep
 * [below + above rows of each row of blocks][w] and [h][right + left columns of each column of blocks]; where neither is seen,
 * such a plane is not read. All 0: nothing. */
typedef struct sb_rims {
    int32_t rows, cols; /* numbers of planes */
    int32_t above, below, left, right;
} sb_rims;
typedef struct sb_step {
    int32_t op;                /* sb_op */
    int32_t x, residual, out;  /* numbers of planes; residual -1: none; a residual of one pixel or channel counts for all */
    int32_t list;              /* number of the list of active blocks */
    int32_t block_h, block_w;  /* block size in pixels of this step's output */
    /* A chain: this many steps, from this one on, on one list and none reading with a halo what another of them writes, are
     * run one after the other for each piece of a block. 0 or 1: none begins here. At most SB_LONGEST_CHAIN. */
    int32_t chain;
    int32_t piece_h, piece_w;  /* of this step's output; in a chain only. They divide the block, in equal parts for all its steps */
    int32_t local;             /* 1: `out` has no memory (its plane says sizes and dtype): pieces lie in the thread's scratch, */
    int64_t scratch;           /* from this byte on, and only steps of the chain read them */
    int32_t dense;             /* 1: every pixel of every image, whatever the list says; block size unused */
    sb_rims rims;              /* of `out`; neither dense nor local */
    union {
        sb_conv2d conv2d;
        sb_pool2d pool2d;
        sb_interpolate interpolate;
        sb_moments moments;
        sb_group_norm group_norm;
        sb_channel_norm channel_norm;
        sb_pad pad;
        sb_shuffle shuffle;
    } u;
    sb_epilogue epilogue;
} sb_step;

/* Runs steps[0..n_steps), each over its own list of active blocks, which is read when the step or its chain
 * begins. seconds, if not NULL, receives the wall time of each step; that of a chain is divided among its steps. */
SB_API void sb_run(const sb_step *steps, int n_steps, const sb_plane *planes, const sb_list *lists, int threads,
                   double *seconds);

/* Changes. What changes in the frame is followed from value to value, pixel by pixel, and computed in tiles, small blocks of
 * each value's own map, so that the outputs are the dense network's. */

/* What changed of one value, and its tiles that are computed: those of tile x tile pixels that hold a changed one. */
typedef struct sb_changes {
    uint8_t *pixels;         /* [n][h][w]: 1 where the value differs from the frame before */
    int32_t *index, *count;  /* the list of tiles, as in sb_blocks, with room for all */
    int32_t *passed;         /* [1]: how many of them were not held back */
    int32_t h, w, tile;
    /* Where a residual gate decides, else NULL. Of each pixel of the input, what of it counts as seen [n][h][w][c] (sizes of the input) and how
     * far it is from that now, over all channels [n][h][w]; of each pixel of the output, how far those that it reads have moved since it was
     * computed, where the gate keeps such [n][h][w]. */
    float *reference, *difference, *carried;
} sb_changes;

/* Which pixels of an output read which of an input along one axis: for i, index[start[i]] ... index[start[i + 1] - 1]. */
typedef struct sb_reach {
    const int32_t *start, *index;
} sb_reach;

/* One input of a step. An output pixel reads the product of some rows and some columns. */
typedef struct sb_source {
    int32_t value; /* number of its changes */
    sb_reach rows; /* for a row of the output those of the input that it reads */
    sb_reach cols; /* for a column of the input those of the output that read it */
} sb_source;

/* Whether a changed pixel of a convolution's output is computed anew, by the residual x - reference over all that it reads (Habibian et
 * al., "Skip-Convolutions for efficient video processing", 2021). Without a weight the sum of magnitudes must be over the threshold
 * (Input-Norm), with one the sum of products and the bias over 0 (the learned gate), and some magnitude. A tile opens as one of its pixels does. */
typedef struct sb_residual_gate {
    sb_reach rows, cols;               /* for a row (column) of the output those of the input that it reads */
    sb_reach row_readers, col_readers; /* for a row (column) of the input those of the output that read it */
    const float *weight;               /* [kernel_h][kernel_w][c], for padding with zeros, or NULL */
    float threshold, bias;
    /* 0: the reference is the frame before. 1, without a weight: what a pixel was when one of those that read it was last computed; the
     * others keep in mind how far it has moved. */
    int32_t since_update;
} sb_residual_gate;

/* How changes pass a step. A tile whose new value is within the tolerance of what it was, in every element, counts as
 * unchanged and keeps what it was: |new - old| < tolerance, or the same bits. Below 0: nothing is compared. */
typedef struct sb_spread {
    const sb_source *sources;
    int32_t n_sources;
    int32_t value; /* number of the output's changes */
    float tolerance;
    const sb_residual_gate *gate; /* of a convolution without residual, or NULL */
} sb_spread;

/* Marks the pixels of an output, of `streams` streams, that read a changed pixel of a source, and lists their tiles; all of the
 * streams where whole[n] is set. */
SB_API void sb_spread_run(const sb_spread *spread, const sb_changes *changes, int streams, const uint8_t *whole);

/* Marks the pixels where x differs from `last` by the tolerance or more in any channel, by any bit where that is 0, and takes
 * them over into `last`. Both have the same strides, which leave no gaps. */
SB_API void sb_compare_run(const sb_plane *x, const sb_plane *last, float tolerance, const sb_changes *found,
                           const uint8_t *whole, int threads);

/* After sb_spread_run for this convolution: unmarks and takes from the list what its gate leaves closed, and marks all pixels of what
 * it opens. x is its input. */
SB_API void sb_residual_gate_run(const sb_spread *spread, const sb_conv2d *conv, const sb_plane *x, const sb_changes *changes, int streams,
                                 const uint8_t *whole, int threads);

/* sb_run where step i takes the tiles that spreads[i] lists just before it, as far as its gate opens them. dropped[i] receives the largest difference that
 * was held back from the readers of step i. */
SB_API void sb_run_changes(const sb_step *steps, const sb_spread *spreads, int n_steps, const sb_plane *planes,
                           const sb_changes *changes, int streams, const uint8_t *whole, int threads, float *dropped,
                           double *seconds);

#ifdef __cplusplus
}
#endif
#endif
