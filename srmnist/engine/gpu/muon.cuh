// Muon: the update of the first three convolutions' weights, as srmnist/training/recipes.py has it. A block
// has one weight as a matrix, and all its products of matrices.

// Matrices of SIDE x SIDE, a multiple of 16, of a block of WIDE threads: each has OWN x OWN values of one.
template <int SIDE> struct Square {
    static constexpr int ACROSS = 16, OWN = SIDE / ACROSS;
    static_assert(ACROSS * ACROSS == WIDE, "");
    float own[OWN][OWN] = {};

    __device__ static int row() { return threadIdx.x / ACROSS * OWN; }
    __device__ static int column() { return threadIdx.x % ACROSS * OWN; }

    // The product of the transpose of a, (depth, SIDE), and b, (depth, SIDE), is added. Both are read along
    // their rows, at once by neighbouring threads.
    __device__ void add_product(const float* a, const float* b, int depth = SIDE) {
        for (int k = 0; k < depth; k++) {
            float left[OWN], right[OWN];
            Vector<OWN>::load(a + k * SIDE + row(), left);
            Vector<OWN>::load(b + k * SIDE + column(), right);
#pragma unroll
            for (int i = 0; i < OWN; i++)
#pragma unroll
                for (int j = 0; j < OWN; j++) own[i][j] = fmaf(left[i], right[j], own[i][j]);
        }
    }
    // After all threads have read what is in `to`, and before any of them reads what is then there.
    __device__ void store(float* to) const {
        __syncthreads();
#pragma unroll
        for (int i = 0; i < OWN; i++) Vector<OWN>::store(own[i], to + (row() + i) * SIDE + column());
        __syncthreads();
    }
};

// A weight of ROWS x COLUMNS from `at` in the vectors; `m` has its momentum. `shared` is three squares.
template <int ROWS, int COLUMNS, int SIDE>
__device__ void muon_update(const float* h, float* parameters, const float* gradient, float* m, int at,
                            float* shared) {
    constexpr bool TALL = ROWS > COLUMNS;
    constexpr int SHORT = TALL ? COLUMNS : ROWS, LONG = TALL ? ROWS : COLUMNS;
    static_assert(SHORT <= SIDE, "");
    float *square = shared, *factor = shared + SIDE * SIDE, *whole = shared + 2 * SIDE * SIDE;
    gradient += at, m += at, parameters += at;

    double squares = 0.0;
    for (int i = threadIdx.x; i < ROWS * COLUMNS; i += WIDE) {
        m[i] = MUON_MOMENTUM * m[i] + gradient[i];
        float value = gradient[i] + MUON_MOMENTUM * m[i];
        squares += (double)value * value;
    }
    const float by_norm = 1.0f / (sqrtf((float)block_sum(squares, (double*)shared)) + 1e-7f);

    // The matrix x of which the singular values become one: SHORT x LONG, of norm 1.
    auto index = [](int i, int k) { return TALL ? k * COLUMNS + i : i * COLUMNS + k; };
    auto x = [&](int i, int k) {
        if (i >= SHORT || k >= LONG) return 0.0f;
        return (gradient[index(i, k)] + MUON_MOMENTUM * m[index(i, k)]) * by_norm;
    };
    {
        Square<SIDE> product;
        for (int from = 0; from < LONG; from += SIDE) {
            __syncthreads();
            for (int i = threadIdx.x; i < SIDE * SIDE; i += WIDE) whole[i] = x(i % SIDE, from + i / SIDE);
            __syncthreads();
            product.add_product(whole, whole);
        }
        product.store(square);
    }
    // All squares are polynomials of x times its transpose, so they are symmetric, and commute.
    for (int iteration = 0; iteration < MUON_ITERATIONS; iteration++) {
        Square<SIDE> polynomial;
        polynomial.add_product(square, square);
#pragma unroll
        for (int i = 0; i < Square<SIDE>::OWN; i++)
#pragma unroll
            for (int j = 0; j < Square<SIDE>::OWN; j++) {
                const int row = polynomial.row() + i, column = polynomial.column() + j;
                float& own = polynomial.own[i][j];
                own = MUON_B * square[row * SIDE + column] + MUON_C * own + (row == column ? MUON_A : 0.0f);
            }
        polynomial.store(factor);
        if (iteration == 0) polynomial.store(whole);
        if (iteration > 0) {
            Square<SIDE> product;
            product.add_product(factor, whole);
            product.store(whole);
        }
        if (iteration == MUON_ITERATIONS - 1) break;
        for (int time = 0; time < 2; time++) {
            Square<SIDE> product;
            product.add_product(square, factor);
            product.store(square);
        }
    }
    const float rate = h[MUON_RATE] * sqrtf(TALL ? (float)ROWS / COLUMNS : 1.0f);
    for (int from = 0; from < LONG; from += SIDE) {
        __syncthreads();
        for (int i = threadIdx.x; i < SIDE * SIDE; i += WIDE) square[i] = x(i / SIDE, from + i % SIDE);
        __syncthreads();
        Square<SIDE> product;
        product.add_product(whole, square);
#pragma unroll
        for (int i = 0; i < Square<SIDE>::OWN; i++)
#pragma unroll
            for (int j = 0; j < Square<SIDE>::OWN; j++) {
                const int row = product.row() + i, column = from + product.column() + j;
                if (row < SHORT && column < LONG) parameters[index(row, column)] -= rate * product.own[i][j];
            }
    }
}

// The weights of conv1, conv2 and conv3, each by one of three blocks.
extern "C" __global__ void __launch_bounds__(WIDE)
    muon(const float* h, float* parameters, const float* gradient, float* m) {
    __shared__ float4 shared[3 * C3 * C3 / 4];
    float* squares = (float*)shared;
    if (blockIdx.x == 0) muon_update<C1, 9, 16>(h, parameters, gradient, m, W1, squares);
    if (blockIdx.x == 1) muon_update<C2, 9 * C1, C2>(h, parameters, gradient, m, W2, squares);
    if (blockIdx.x == 2) muon_update<C3, 9 * C2, C3>(h, parameters, gradient, m, W3, squares);
}
