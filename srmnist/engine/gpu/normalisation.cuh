// Batch normalisation: from the tiles' sums to coefficients, forward and backward.

// The two totals of a channel, `blockIdx.x`, over `tiles` rows of `sums` (tiles, 2, C).
__device__ inline void totals(const double* sums, int tiles, double* scratch, double& first, double& second) {
    const int channels = gridDim.x, c = blockIdx.x;
    double a = 0.0, b = 0.0;
    for (int i = threadIdx.x; i < tiles; i += THREADS) {
        a += sums[(long long)i * 2 * channels + c];
        b += sums[((long long)i * 2 + 1) * channels + c];
    }
    first = block_sum(a, scratch);
    second = block_sum(b, scratch);
}

// The first four rows of `norm`; a block for each channel.
//
// By the batch's own statistics, `average` (2, C), the running mean and variance, are updated as
// chainer.functions.batch_normalization does, with Bessel's correction, unless they are null. Where `sums`
// are null, it is the running statistics by which the layer normalises.
extern "C" __global__ void __launch_bounds__(THREADS)
    statistics(const double* sums, int tiles, const float* parameters, int gamma, int beta, float* norm,
               float* average, long long count, double eps, double decay) {
    __shared__ double scratch[THREADS];
    const int channels = gridDim.x, c = blockIdx.x;
    double mean, variance;
    if (sums != nullptr) {
        double sum, squares;
        totals(sums, tiles, scratch, sum, squares);
        mean = sum / count;
        variance = squares / count - mean * mean;
        if (variance < 0.0) variance = 0.0;  // fmax would make 0 of NaN
    } else {
        mean = average[c];
        variance = average[channels + c];
    }
    if (threadIdx.x > 0) return;
    double inverse_std = 1.0 / sqrt(variance + eps), scale = parameters[gamma + c] * inverse_std;
    norm[SCALE * channels + c] = (float)scale;
    norm[SHIFT * channels + c] = (float)(parameters[beta + c] - mean * scale);
    norm[MEAN * channels + c] = (float)mean;
    norm[INVERSE_STD * channels + c] = (float)inverse_std;
    if (sums == nullptr || average == nullptr) return;
    variance *= count / (count > 1 ? count - 1.0 : 1.0);
    average[c] = average[c] * (float)decay + (float)((1.0 - decay) * mean);
    average[channels + c] = average[channels + c] * (float)decay + (float)((1.0 - decay) * variance);
}

// The gradients of gamma and beta, and the last three rows of `norm`; a block for each channel.
//
// S. Ioffe and C. Szegedy, "Batch Normalization", 2015, section 3: with n = (a - mean) / std, the gradient of
// a is scale * (g - sum(g) / count - n * sum(g * n) / count), linear in g and a. With running statistics
// (`batch` is 0) it is scale * g.
extern "C" __global__ void __launch_bounds__(THREADS)
    bn_gradient(const double* sums, int tiles, float* norm, float* gradient, int gamma, int beta,
                long long count, int batch) {
    __shared__ double scratch[THREADS];
    double sum, projection;
    totals(sums, tiles, scratch, sum, projection);
    if (threadIdx.x > 0) return;
    const int channels = gridDim.x, c = blockIdx.x;
    double inverse_std = norm[INVERSE_STD * channels + c], scale = norm[SCALE * channels + c];
    double ggamma = projection * inverse_std;
    double by_a = batch ? -scale * inverse_std * ggamma / count : 0.0;
    double constant = batch ? -scale * sum / count - by_a * norm[MEAN * channels + c] : 0.0;
    gradient[gamma + c] = (float)ggamma;
    gradient[beta + c] = (float)sum;
    norm[BY_G * channels + c] = (float)scale;
    norm[BY_A * channels + c] = (float)by_a;
    norm[CONSTANT * channels + c] = (float)constant;
}
