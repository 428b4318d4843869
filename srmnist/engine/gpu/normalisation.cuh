// Batch normalisation: from the tiles' sums to coefficients, forward and backward.

// What `x -> scale * x + shift` must be to normalise, written as the first four rows of `norm`.
__device__ inline void write_norm(float* norm, int channels, int c, double mean, double variance, float gamma,
                                  float beta, double eps) {
    double inverse_std = 1.0 / sqrt(variance + eps), scale = gamma * inverse_std;
    norm[SCALE * channels + c] = (float)scale;
    norm[SHIFT * channels + c] = (float)(beta - mean * scale);
    norm[MEAN * channels + c] = (float)mean;
    norm[INVERSE_STD * channels + c] = (float)inverse_std;
}

// The two totals of a channel, `blockIdx.x`, over `tiles` rows of `sums` (tiles, 2, C).
__device__ inline void totals(const double* sums, int tiles, double* scratch, double& first, double& second) {
    const int channels = gridDim.x, c = blockIdx.x;
    double a = 0.0, b = 0.0;
    for (int i = threadIdx.x; i < tiles; i += blockDim.x) {
        a += sums[(long long)i * 2 * channels + c];
        b += sums[((long long)i * 2 + 1) * channels + c];
    }
    first = block_sum(a, scratch);
    second = block_sum(b, scratch);
}

// Normalisation by the batch's own statistics; a block for each channel, 128 threads. `average` (2, C) are
// the running mean and variance, brought up to date as chainer.functions.batch_normalization does, with
// Bessel's correction, unless they are null.
extern "C" __global__ void __launch_bounds__(128)
    batch_statistics(const double* sums, int tiles, const float* parameters, int gamma, int beta, float* norm,
                     float* average, long long count, double eps, double decay) {
    __shared__ double scratch[128];
    double sum, squares;
    totals(sums, tiles, scratch, sum, squares);
    if (threadIdx.x > 0) return;
    const int channels = gridDim.x, c = blockIdx.x;
    double mean = sum / count, variance = fmax(squares / count - mean * mean, 0.0);
    write_norm(norm, channels, c, mean, variance, parameters[gamma + c], parameters[beta + c], eps);
    if (average == nullptr) return;
    double correction = count / fmax(count - 1.0, 1.0);
    float fresh_mean = (float)((1.0 - decay) * mean), fresh_variance = (float)((1.0 - decay) * correction * variance);
    average[c] = average[c] * (float)decay + fresh_mean;
    average[channels + c] = average[channels + c] * (float)decay + fresh_variance;
}

// Normalisation by the running statistics, for evaluation; a block for each channel, one thread.
extern "C" __global__ void __launch_bounds__(32)
    fixed_statistics(const float* parameters, int gamma, int beta, float* norm, const float* average, double eps) {
    if (threadIdx.x > 0) return;
    const int channels = gridDim.x, c = blockIdx.x;
    write_norm(norm, channels, c, average[c], average[channels + c], parameters[gamma + c], parameters[beta + c],
               eps);
}

// The gradients of gamma and beta, and the last three rows of `norm`; a block for each channel, 128 threads.
//
// S. Ioffe and C. Szegedy, "Batch Normalization", 2015, section 3: with n = (a - mean) / std, the gradient of
// a is scale * (g - sum(g) / count - n * sum(g * n) / count), linear in g and a. With running statistics
// (`batch` is 0) it is scale * g.
extern "C" __global__ void __launch_bounds__(128)
    bn_gradient(const double* sums, int tiles, float* norm, float* gradient, int gamma, int beta, long long count,
                int batch) {
    __shared__ double scratch[128];
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
