// Subtraction-free nested dissection and conjugate gradients on batches of frames.
//
// The algorithm is that of cm_lightning/confidence/cpu. This file is compiled together with the others, with and without
// DOUBLE_PRECISION, which determines the type of the factor. It needs no headers, and uses no atomics: every value is
// written by one thread (flags by several, which all write the same), and the order of sums depends only on the shape of
// the frame, so that the result for a frame is bit-identical in all batches.
//
// The last axis of every grid and the first axis of every array is the frame. Integer arguments are long long.

#ifdef DOUBLE_PRECISION
typedef double real;
#define SCALE 1.0
#define ROOT_SCALE 1.0
#define NEGLIGIBLE 2.2250738585072014e-300
#else
typedef float real;
// Weights are at most 1. They are scaled by 2^96 to use the entire range of float. Inverses of their sums, which have
// the scale 2^-96, and right-hand sides are scaled by 2^48, so that their products have no scale.
#define SCALE 79228162514264337593543950336.0
#define ROOT_SCALE 281474976710656.0
// Smaller ratios are set to 0. They are far below rounding errors, and would lead to underflow.
#define NEGLIGIBLE 1.1754943508222875e-30f
#endif

#define PIXELS_PER_BLOCK 1024

#define GRAPH_PARAMETERS                                                                                            \
    const double *vertical, const double *horizontal, const double *down_right, const double *down_left,              \
        const double *slack, const unsigned char *unknown, const long long depth, const long long lateral

// Advance the pointers of the graph to a frame.
#define SELECT_GRAPH(frame)                                                                                         \
    vertical += (frame) * (depth - 1) * lateral;                                                                      \
    horizontal += (frame) * depth * (lateral - 1);                                                                    \
    down_right += (frame) * (depth - 1) * (lateral - 1);                                                              \
    down_left += (frame) * (depth - 1) * (lateral - 1);                                                               \
    slack += (frame) * depth * lateral;                                                                               \
    unknown += (frame) * depth * lateral;

// ---------------------------------------------------------------------------------------------------------------------
// Conjugate gradients in double. Blocks have 256 threads, and process PIXELS_PER_BLOCK pixels if the grid is over pixels.

// Sum the 256 values of a block in a fixed order. The result is valid in thread 0.
__device__ inline double block_sum(double value, double *shared) {
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int half = 128; half > 0; half /= 2) {
        if ((int)threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    return shared[0];
}

__device__ inline double larger(double first, double second) { return first > second ? first : second; }
__device__ inline double magnitude_of(double value) { return value < 0 ? -value : value; }

// Maximum of the 256 values of a block. The result is valid in all threads.
__device__ inline double block_maximum(double value, double *shared) {
    __syncthreads();
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int half = 128; half > 0; half /= 2) {
        if ((int)threadIdx.x < half) shared[threadIdx.x] = larger(shared[threadIdx.x], shared[threadIdx.x + half]);
        __syncthreads();
    }
    return shared[0];
}

// Compute A x as slack_i x_i + sum_j w_ij (x_i - x_j). If the pointers are not null, also compute the sum of the
// absolute values of its terms, and partial sums of the dot product of x and A x.
extern "C" __global__ void multiply(GRAPH_PARAMETERS, const int *skipped, const double *x, double *product,
                                    double *magnitude, double *parts) {
    __shared__ double shared[256];
    const long long frame = blockIdx.z, pixels = depth * lateral;
    if (skipped[frame]) return;
    SELECT_GRAPH(frame)
    x += frame * pixels;
    double dot = 0;
    for (int k = 0; k < PIXELS_PER_BLOCK / 256; k++) {
        const long long pixel = (long long)blockIdx.x * PIXELS_PER_BLOCK + k * 256 + threadIdx.x;
        if (pixel >= pixels) break;
        const long long row = pixel / lateral, column = pixel - row * lateral;
        const bool above = row > 0, below = row + 1 < depth, before = column > 0, after = column + 1 < lateral;
        const long long edge = row * (lateral - 1) + column; // for arrays with lateral - 1 columns
        const long long edge_above = edge - (lateral - 1);
        const double value = x[pixel];
        double flow = slack[pixel] * value, size = magnitude_of(flow);
#define ADD_EDGE(exists, weights, edge, other)                                                                        \
    if (exists) {                                                                                                     \
        const double term = weights[edge] * (value - x[other]);                                                       \
        flow += term;                                                                                                 \
        size += magnitude_of(term);                                                                                   \
    }
        ADD_EDGE(above, vertical, pixel - lateral, pixel - lateral)
        ADD_EDGE(below, vertical, pixel, pixel + lateral)
        ADD_EDGE(before, horizontal, edge - 1, pixel - 1)
        ADD_EDGE(after, horizontal, edge, pixel + 1)
        ADD_EDGE(above && before, down_right, edge_above - 1, pixel - lateral - 1)
        ADD_EDGE(below && after, down_right, edge, pixel + lateral + 1)
        ADD_EDGE(above && after, down_left, edge_above, pixel - lateral + 1)
        ADD_EDGE(below && before, down_left, edge - 1, pixel + lateral - 1)
        product[frame * pixels + pixel] = flow;
        if (magnitude) magnitude[frame * pixels + pixel] = size;
        dot += value * flow;
    }
    if (parts) {
        dot = block_sum(dot, shared);
        if (threadIdx.x == 0) parts[frame * gridDim.x + blockIdx.x] = dot;
    }
}

// Compute partial sums of the dot product of residual and correction, and partial maxima of the correction.
extern "C" __global__ void measure_correction(const long long pixels, const int *skipped, const double *residual,
                                   const real *correction, double *dots, double *largest) {
    __shared__ double shared[256];
    const long long frame = blockIdx.z;
    if (skipped[frame]) return;
    double dot = 0, most = 0;
    for (int k = 0; k < PIXELS_PER_BLOCK / 256; k++) {
        const long long pixel = (long long)blockIdx.x * PIXELS_PER_BLOCK + k * 256 + threadIdx.x;
        if (pixel >= pixels) break;
        const double value = correction[frame * pixels + pixel];
        dot += residual[frame * pixels + pixel] * value;
        most = larger(most, magnitude_of(value));
    }
    dot = block_sum(dot, shared);
    if (threadIdx.x == 0) dots[frame * gridDim.x + blockIdx.x] = dot;
    most = block_maximum(most, shared);
    if (threadIdx.x == 0) largest[frame * gridDim.x + blockIdx.x] = most;
}

// Columns of the state of the iteration of a frame.
#define STATE_FIELDS 7
#define ITERATIONS 0
#define ESTIMATE 1         // estimate of the maximum error, or FAILED
#define CONTAINS_INVALID 2 // whether the frame contains NaN or infinity
#define BEFORE 3           // dot product of residual and correction, of this step and then of the previous one
#define KEEP 4             // factor of the previous direction in the next one
#define LENGTH 5           // length of the step
#define UNIT 6             // unit of errors

#define FAILED -1

#define RUNNING 0
#define CONVERGED 1 // the last correction must still be added
#define BROKEN 2

// Check the convergence of every frame. There is one block per frame. The first step initialises state and status.
extern "C" __global__ void check_convergence(const long long parts, const double *dots, const double *largest,
                                             const long long step, const double tolerance, const long long relative,
                                             const int *invalid, const int *underflowed, double *state, int *status) {
    __shared__ double shared[256];
    const long long frame = blockIdx.z;
    if (step > 0 && status[frame]) return;
    state += frame * STATE_FIELDS;
    double dot = 0, most = 0;
    if (step > 0 || !underflowed[frame]) { // the same for all threads of the block
        for (long long part = threadIdx.x; part < parts; part += 256) dot += dots[frame * parts + part];
        dot = block_sum(dot, shared);
    }
    if (threadIdx.x > 0) return;
    if (step == 0) {
        status[frame] = RUNNING;
        state[CONTAINS_INVALID] = invalid[frame];
    }
    state[ITERATIONS] = step;
    if ((step == 0 && underflowed[frame]) || !(dot - dot == 0)) { // no factor, or infinite or not a number
        status[frame] = BROKEN;
        state[ESTIMATE] = FAILED;
        return;
    }
    for (long long part = 0; part < parts; part++) most = larger(most, largest[frame * parts + part]);
    if (step == 0) state[UNIT] = relative && most > 0 ? most : 1;
    most /= state[UNIT];
    state[ESTIMATE] = most;
    if ((step > 0 && most <= tolerance) || dot <= 0) {
        status[frame] = CONVERGED;
        return;
    }
    state[KEEP] = step > 0 ? dot / state[BEFORE] : 0;
    state[BEFORE] = dot;
}

// Compute the next direction, or add the last correction if the frame has converged in this step. The first step
// initialises both vectors.
extern "C" __global__ void update_direction(const long long pixels, const long long step, const double *state,
                                            const int *status, const real *correction, double *direction, double *x) {
    const long long frame = blockIdx.z;
    state += frame * STATE_FIELDS;
    const bool running = status[frame] == RUNNING;
    const bool last = status[frame] == CONVERGED && state[ITERATIONS] == step;
    if (step > 0 && !running && !last) return;
    for (int k = 0; k < PIXELS_PER_BLOCK / 256; k++) {
        const long long pixel = (long long)blockIdx.x * PIXELS_PER_BLOCK + k * 256 + threadIdx.x;
        if (pixel >= pixels) break;
        const long long place = frame * pixels + pixel;
        if (step == 0) x[place] = last ? correction[place] : 0;
        else if (last) x[place] += correction[place];
        if (running) direction[place] = step == 0 ? correction[place] : correction[place] + state[KEEP] * direction[place];
    }
}

// Compute the length of the step. There is one block per frame.
extern "C" __global__ void measure_step(const long long parts, const double *dots, double *state, int *status) {
    __shared__ double shared[256];
    const long long frame = blockIdx.z;
    if (status[frame]) return;
    state += frame * STATE_FIELDS;
    double dot = 0;
    for (long long part = threadIdx.x; part < parts; part += 256) dot += dots[frame * parts + part];
    dot = block_sum(dot, shared);
    if (threadIdx.x > 0) return;
    if (dot > 0) {
        state[LENGTH] = state[BEFORE] / dot;
    } else {
        status[frame] = BROKEN;
        state[ESTIMATE] = FAILED;
    }
}

// Update the solution and the residual, of which the previous one may be the right-hand side.
extern "C" __global__ void take_step(const long long pixels, const double *state, const int *status,
                                     const double *direction, const double *product, const double *previous, double *x,
                                     double *residual) {
    const long long frame = blockIdx.z;
    if (status[frame]) return;
    const double length = state[frame * STATE_FIELDS + LENGTH];
    for (int k = 0; k < PIXELS_PER_BLOCK / 256; k++) {
        const long long pixel = (long long)blockIdx.x * PIXELS_PER_BLOCK + k * 256 + threadIdx.x;
        if (pixel >= pixels) break;
        const long long place = frame * pixels + pixel;
        x[place] += length * direction[place];
        residual[place] = previous[place] - length * product[place];
    }
}
