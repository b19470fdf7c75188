/* The families of kernels, each checked against plain loops on cases of chance; a failure is said and ends the program. */
#pragma once

#include "maps.h"

void check_conv2d(Random &random, int number);
void check_pool2d(Random &random, int number);
void check_interpolate(Random &random, int number);
void check_pointwise(Random &random, int number);
void check_statistics(Random &random, int number);
void check_channel_norm(Random &random, int number);
void check_pad(Random &random, int number);
void check_shuffle(Random &random, int number);
void check_gather_scatter(Random &random, int number);
void check_run(Random &random, int number);
void check_halves(Random &random, int number);
void check_policy(Random &random, int number);
void check_subnormals(Random &random, int number);
