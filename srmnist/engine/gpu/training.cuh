// What surrounds the network in a training step: the batch, the weights' layout, the loss, the sums, Adam.

// A pixel between four others: v of the way down, u of the way to the right. The order of the operations and
// their rounding, one by one, are those of Chainer's resize_images on the CPU (see engine/resampling.py).
__device__ inline float between(float upper_left, float upper_right, float lower_left, float lower_right,
                                float v, float u) {
    const float left = __fsub_rn(1.0f, u);
    const float by_lower_left = __fmul_rn(left, v), by_lower_right = __fmul_rn(u, v);
    const float by_upper_left = __fsub_rn(left, by_lower_left), by_upper_right = __fsub_rn(u, by_lower_right);
    const float of_upper_left = __fmul_rn(upper_left, by_upper_left);
    const float of_upper_right = __fmul_rn(upper_right, by_upper_right);
    const float of_lower_left = __fmul_rn(lower_left, by_lower_left);
    const float of_lower_right = __fmul_rn(lower_right, by_lower_right);
    return __fadd_rn(__fadd_rn(__fadd_rn(of_upper_left, of_upper_right), of_lower_left), of_lower_right);
}

__device__ inline float intensity(unsigned char grey) {
    return __fmul_rn((float)grey, 1.0f / 255.0f);
}

// A batch's pairs from stored grey values: t is the original, x the degraded image, for `total` pixels. A
// pixel of x lies between four pixels of the small image; each of them is computed anew from four of the
// original.
// rows, columns and their fractions: see plan.samples.
extern "C" __global__ void __launch_bounds__(WIDE)
    pairs(const int* indices, const unsigned char* images, const int* rows, const float* row_fractions,
          const int* columns, const float* column_fractions, float* x, float* t, int height, int width,
          long long total) {
    const long long i = (long long)blockIdx.x * WIDE + threadIdx.x;
    if (i >= total) return;
    const int pixels = height * width, pixel = i % pixels, row = pixel / width, column = pixel % width;
    const unsigned char* image = images + (long long)indices[i / pixels] * pixels;
    t[i] = intensity(image[pixel]);
    float small[4];
    for (int corner = 0; corner < 4; corner++) {
        const int a = corner / 2 * height + row, b = corner % 2 * width + column;
        const int left = columns[b], right = min(left + 1, width - 1);
        const unsigned char* upper = image + rows[a] * width;
        const unsigned char* lower = image + min(rows[a] + 1, height - 1) * width;
        small[corner] = between(intensity(upper[left]), intensity(upper[right]), intensity(lower[left]),
                                intensity(lower[right]), row_fractions[a], column_fractions[b]);
    }
    x[i] = between(small[0], small[1], small[2], small[3], row_fractions[2 * height + row],
                   column_fractions[2 * width + column]);
}

// The convolutions' weights in the layouts that the kernels read.
extern "C" __global__ void __launch_bounds__(WIDE) pack(const float* parameters, float* packed) {
    int i = blockIdx.x * WIDE + threadIdx.x;
    if (i >= PACKED) return;
    int from, inputs, outputs, at;
    bool reversed = false;
    if (i < P2) from = W1, inputs = 1, outputs = C1, at = i - P1;
    else if (i < P3) from = W2, inputs = C1, outputs = C2, at = i - P2;
    else if (i < P4) from = W3, inputs = C2, outputs = C3, at = i - P3;
    else if (i < Q2) from = W4, inputs = 1, outputs = C3, at = i - P4;  // of one output
    else if (i < Q3) from = W2, inputs = C2, outputs = C1, at = i - Q2, reversed = true;
    else from = W3, inputs = C3, outputs = C2, at = i - Q3, reversed = true;
    // packed (inputs, 9, outputs); reversed, its inputs are the convolution's outputs.
    int output = at % outputs, tap = at / outputs % 9, input = at / outputs / 9;
    packed[i] = reversed ? parameters[from + (input * outputs + output) * 9 + 8 - tap]
                         : parameters[from + (output * inputs + input) * 9 + tap];
}

// The gradient of the sigmoid's input, gz, from the output y and its gradient gy; each block's sum for the
// bias's. With t, gy is that of the mean squared error of y against t, and each block's sum of squared errors
// comes, too.
extern "C" __global__ void __launch_bounds__(WIDE)
    output_gradient(const float* y, const float* t, const float* gy, float* gz, double* bias_sums,
                    double* loss_sums, long long total) {
    __shared__ double scratch[WIDE];
    double mine = 0.0, errors = 0.0;
    const float coefficient = 2.0f / total;
    for (long long i = blockIdx.x * WIDE + threadIdx.x; i < total; i += gridDim.x * WIDE) {
        float error = t != nullptr ? y[i] - t[i] : 0.0f, g = t != nullptr ? coefficient * error : gy[i];
        gz[i] = g * y[i] * (1.0f - y[i]);
        mine += gz[i];
        errors += (double)error * error;
    }
    double bias = block_sum(mine, scratch);
    double loss = block_sum(errors, scratch);
    if (threadIdx.x > 0) return;
    bias_sums[blockIdx.x] = bias;
    loss_sums[blockIdx.x] = loss;
}

// From the blocks' sums: the bias's gradient, and the loss, which is a mean over `total`. One block; what is
// not wanted is null.
extern "C" __global__ void __launch_bounds__(WIDE)
    sum_scalars(const double* bias_sums, const double* loss_sums, int blocks, float* gradient, float* loss,
                long long total) {
    __shared__ double scratch[WIDE];
    double bias = 0.0, errors = 0.0;
    for (int i = threadIdx.x; i < blocks; i += WIDE) {
        bias += bias_sums[i];
        errors += loss_sums[i];
    }
    bias = block_sum(bias, scratch);
    errors = block_sum(errors, scratch);
    if (threadIdx.x > 0) return;
    if (gradient != nullptr) gradient[BIAS] = (float)bias;
    if (loss != nullptr) *loss = (float)(errors / total);
}

// A convolution's gradient, (outputs, inputs, 3, 3) from `at` in `gradient`: the sum of the blocks'
// `partials`, (blocks, inputs, 9, outputs). A block has SUMMED weights, 64 bytes of each partial gradient.
// Its threads share the partial gradients, so that many reads are under way at once.
extern "C" __global__ void __launch_bounds__(WIDE)
    sum_partials(const float* partials, int blocks, int inputs, int outputs, float* gradient, int at) {
    constexpr int SLICES = WIDE / SUMMED;
    __shared__ double slices[SLICES][SUMMED];
    const int size = inputs * 9 * outputs, slice = threadIdx.x / SUMMED, lane = threadIdx.x % SUMMED;
    const int i = blockIdx.x * SUMMED + lane;
    double mine = 0.0;
    if (i < size)
        for (int block = slice; block < blocks; block += SLICES)
            mine += partials[(long long)block * size + i];
    slices[slice][lane] = mine;
    __syncthreads();
    if (slice > 0 || i >= size) return;
    double all = 0.0;
    for (int s = 0; s < SLICES; s++) all += slices[s][lane];
    int output = i % outputs, tap = i / outputs % 9, input = i / outputs / 9;
    gradient[at + (output * inputs + input) * 9 + tap] = (float)all;
}

// Adam as chainer/optimizers/adam.py has it, on all parameters at once; but not on those that the kernel
// `muon` updates, if `with_muon`. `h` may change from step to step.
extern "C" __global__ void __launch_bounds__(THREADS)
    adam(const float* h, float* parameters, const float* gradient, float* m, float* v, int with_muon) {
    int i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= PARAMETERS) return;
    const bool by_muon = (i >= W1 && i < W1 + 9 * C1) || (i >= W2 && i < W2 + 9 * C1 * C2) ||
                         (i >= W3 && i < W3 + 9 * C2 * C3);
    if (with_muon && by_muon) return;
    float g = gradient[i];
    m[i] += h[ONE_MINUS_BETA1] * (g - m[i]);
    v[i] += h[ONE_MINUS_BETA2] * (g * g - v[i]);
    parameters[i] -= h[ETA] * (h[ALPHA_T] * m[i] / (sqrtf(v[i]) + h[EPS]) + h[WEIGHT_DECAY] * parameters[i]);
}
