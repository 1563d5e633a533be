// Elimination by nested dissection without subtractions, and substitution with the factor. This file is compiled
// together with kernels.cu. The lanes of a warp may run at different times, so that they must be synchronised before one
// of them reads what another one wrote.

// Constants of cells and fronts are compiler options; see device.py.

// Columns of the table of fronts.
#define FRONT_FIELDS 8
#define START 0       // index of the first pixel of the front in the list of nodes
#define PIVOTS 1      // number of pivots, which are the first pixels
#define SIZE 2        // number of pixels
#define STRIDE 3      // distance between rows of weights; a row contains a weight for each pixel, followed by the slack
#define WORK 4        // index of the front in the memory of its level
#define FACTOR_START 5 // index of the rows of its pivots in the factor
#define FIRST 6       // halves of its rectangle: a front, -2 - cell, or -1
#define SECOND 7

#define WARP 32
#define ALL_LANES 0xffffffffu

// 16 bytes of a row in shared memory, which are loaded at once.
#define VECTOR (16 / (int)sizeof(real))
struct alignas(16) Vector {
    real values[VECTOR];
};

// Memory of a block whose size is given at the launch.
#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(name) extern __shared__ Vector name[];
#endif

// Sum of the values of a warp. All lanes add the same pairs, so that they obtain the same result.
__device__ inline real warp_sum(real value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(ALL_LANES, value, distance);
    return value;
}

__device__ inline real ratio_of(const real weight, const real inverse) {
    const real ratio = weight * inverse;
    return ratio > NEGLIGIBLE ? ratio : 0;
}

__device__ inline int least(const int first, const int second) { return first < second ? first : second; }

// Index of the weight between two ring pixels in the update of a cell, which is followed by 32 slacks.
__device__ inline int ring_pair(const int first, const int second) {
    return first * (2 * RING - 1 - first) / 2 + second - first - 1;
}

// ---------------------------------------------------------------------------------------------------------------------
// Cells, with one warp per cell. Blocks have 32 x CELLS_PER_BLOCK threads, which need no other synchronisation.

// Each pair consists of the index of the weight that changes (11 bits), and of the indices of the two neighbours of the
// eliminated pixel (6 bits each).
extern "C" __global__ void __launch_bounds__(WARP *CELLS_PER_BLOCK)
    eliminate_cells(GRAPH_PARAMETERS, const long long cells, const int *__restrict__ corners,
                    const int *__restrict__ rows, const int *__restrict__ columns, const int *__restrict__ row_start,
                    const int *__restrict__ neighbours, const int *__restrict__ pair_start,
                    const int *__restrict__ pairs, const int *__restrict__ edges, const long long edge_count,
                    real *factor, real *pivots, real *updates, int *underflowed) {
    __shared__ real weights_of_cells[CELLS_PER_BLOCK][CELL_WEIGHTS];
    __shared__ real ratios_of_cells[CELLS_PER_BLOCK][MOST_NEIGHBOURS];
    __shared__ real slacks_of_cells[CELLS_PER_BLOCK][CELL_PIXELS + RING];
    const int lane = threadIdx.x;
    const long long cell = (long long)blockIdx.x * CELLS_PER_BLOCK + threadIdx.y, frame = blockIdx.z;
    if (cell >= cells) return;
    real *weights = weights_of_cells[threadIdx.y], *ratios = ratios_of_cells[threadIdx.y];
    real *slacks = slacks_of_cells[threadIdx.y];
    SELECT_GRAPH(frame)
    const long long place = frame * cells + cell;
    factor += place * CELL_FACTOR;
    pivots += place * CELL_PIXELS;
    updates += place * (RING_PAIRS + RING);
    const int top = corners[2 * cell] - 1, left = corners[2 * cell + 1] - 1;

    for (int index = lane; index < CELL_WEIGHTS; index += WARP) weights[index] = 0;
    for (int pixel = lane; pixel < CELL_PIXELS + RING; pixel += WARP) {
        const int row = top + rows[pixel], column = left + columns[pixel];
        const bool own = pixel < CELL_PIXELS && row < depth && column < lateral;
        slacks[pixel] = own ? (real)(slack[row * lateral + column] * SCALE) : 0;
    }
    __syncwarp();
    for (int edge = lane; edge < edge_count; edge += WARP) {
        const int kind = edges[4 * edge + 1];
        const int row = top + edges[4 * edge + 2], column = left + edges[4 * edge + 3];
        double weight = 0;
        if (row >= 0 && column >= 0) {
            if (kind == 0) {
                if (row + 1 < depth && column < lateral) weight = vertical[row * lateral + column];
            } else if (kind == 1) {
                if (row < depth && column + 1 < lateral) weight = horizontal[row * (lateral - 1) + column];
            } else if (row + 1 < depth && column + 1 < lateral) {
                weight = (kind == 2 ? down_right : down_left)[row * (lateral - 1) + column];
            }
        }
        weights[edges[4 * edge]] = (real)(weight * SCALE);
    }
    __syncwarp();

    for (int pixel = 0; pixel < CELL_PIXELS; pixel++) {
        const int begin = row_start[pixel], count = row_start[pixel + 1] - begin;
        const real own_slack = slacks[pixel];
        real sum = 0;
        for (int index = lane; index < count; index += WARP) sum += weights[begin + index];
        const real total = own_slack + warp_sum(sum);
        const real inverse = total > 0 ? 1 / total : 0;
        for (int index = lane; index < count; index += WARP) {
            const real ratio = ratio_of(weights[begin + index], inverse);
            ratios[index] = ratio;
            factor[begin + index] = ratio;
            slacks[neighbours[begin + index]] += ratio * own_slack;
        }
        if (lane == 0) {
            pivots[pixel] = total > 0 ? (real)(ROOT_SCALE / total) : 0;
            const int row = top + rows[pixel], column = left + columns[pixel];
            if (!(total > 0) && row < depth && column < lateral && unknown[row * lateral + column])
                underflowed[frame] = 1;
        }
        __syncwarp();
        const int end = pair_start[pixel + 1];
#pragma unroll 4
        for (int index = pair_start[pixel] + lane; index < end; index += WARP) {
            const int pair = pairs[index];
            weights[pair & 2047] += weights[begin + (pair >> 11 & 63)] * ratios[pair >> 17];
        }
        __syncwarp();
    }
    for (int index = lane; index < RING_PAIRS; index += WARP) updates[index] = weights[CELL_FACTOR + index];
    updates[RING_PAIRS + lane] = slacks[CELL_PIXELS + lane];
}

// Forward substitution: computes z at the pixels of cells, and their contributions to the rings.
extern "C" __global__ void __launch_bounds__(WARP *CELLS_PER_BLOCK)
    reduce_cells(const double *__restrict__ right, const long long depth, const long long lateral,
                 const long long cells, const int *__restrict__ corners, const int *__restrict__ rows,
                 const int *__restrict__ columns, const int *__restrict__ row_start,
                 const int *__restrict__ neighbours, const real *__restrict__ factor,
                 const real *__restrict__ pivots, const int *__restrict__ skipped, real *__restrict__ solution,
                 real *__restrict__ ring_contributions) {
    __shared__ real windows[CELLS_PER_BLOCK][CELL_PIXELS + RING];
    __shared__ real held_of_cells[CELLS_PER_BLOCK][CELL_FACTOR];
    const int lane = threadIdx.x;
    const long long cell = (long long)blockIdx.x * CELLS_PER_BLOCK + threadIdx.y, frame = blockIdx.z;
    if (cell >= cells || skipped[frame]) return;
    real *window = windows[threadIdx.y], *held = held_of_cells[threadIdx.y];
    const long long place = frame * cells + cell;
    factor += place * CELL_FACTOR;
    pivots += place * CELL_PIXELS;
    right += frame * depth * lateral;
    solution += frame * depth * lateral;
    const int top = corners[2 * cell] - 1, left = corners[2 * cell + 1] - 1;
    for (int index = lane; index < CELL_FACTOR; index += WARP) held[index] = factor[index];
    for (int pixel = lane; pixel < CELL_PIXELS + RING; pixel += WARP) {
        const int row = top + rows[pixel], column = left + columns[pixel];
        const bool own = pixel < CELL_PIXELS && row < depth && column < lateral;
        window[pixel] = own ? (real)(right[row * lateral + column] * ROOT_SCALE) : 0;
    }
    __syncwarp();
    for (int pixel = 0; pixel < CELL_PIXELS; pixel++) {
        const int end = row_start[pixel + 1];
        const real value = window[pixel];
        for (int index = row_start[pixel] + lane; index < end; index += WARP)
            window[neighbours[index]] += held[index] * value;
        __syncwarp();
    }
    for (int pixel = lane; pixel < CELL_PIXELS; pixel += WARP) {
        const int row = top + rows[pixel], column = left + columns[pixel];
        if (row < depth && column < lateral) solution[row * lateral + column] = window[pixel] * pivots[pixel];
    }
    ring_contributions[place * RING + lane] = window[CELL_PIXELS + lane];
}

// Backward substitution, after the rings have been solved.
extern "C" __global__ void __launch_bounds__(WARP *CELLS_PER_BLOCK)
    substitute_cells(const long long depth, const long long lateral, const long long cells,
                     const int *__restrict__ corners, const int *__restrict__ rows, const int *__restrict__ columns,
                     const int *__restrict__ row_start, const int *__restrict__ neighbours,
                     const real *__restrict__ factor, const int *__restrict__ skipped, real *solution) {
    __shared__ real windows[CELLS_PER_BLOCK][CELL_PIXELS + RING];
    __shared__ real held_of_cells[CELLS_PER_BLOCK][CELL_FACTOR];
    const int lane = threadIdx.x;
    const long long cell = (long long)blockIdx.x * CELLS_PER_BLOCK + threadIdx.y, frame = blockIdx.z;
    if (cell >= cells || skipped[frame]) return;
    real *window = windows[threadIdx.y], *held = held_of_cells[threadIdx.y];
    factor += (frame * cells + cell) * CELL_FACTOR;
    solution += frame * depth * lateral;
    const int top = corners[2 * cell] - 1, left = corners[2 * cell + 1] - 1;
    for (int index = lane; index < CELL_FACTOR; index += WARP) held[index] = factor[index];
    for (int pixel = lane; pixel < CELL_PIXELS + RING; pixel += WARP) {
        const int row = top + rows[pixel], column = left + columns[pixel];
        const bool inside = row >= 0 && column >= 0 && row < depth && column < lateral;
        window[pixel] = inside ? solution[row * lateral + column] : 0;
    }
    __syncwarp();
    for (int pixel = CELL_PIXELS - 1; pixel >= 0; pixel--) {
        const int end = row_start[pixel + 1];
        real sum = 0;
        for (int index = row_start[pixel] + lane; index < end; index += WARP)
            sum += held[index] * window[neighbours[index]];
        sum = warp_sum(sum);
        if (lane == 0) window[pixel] += sum;
        __syncwarp();
    }
    for (int pixel = lane; pixel < CELL_PIXELS; pixel += WARP) {
        const int row = top + rows[pixel], column = left + columns[pixel];
        if (row < depth && column < lateral) solution[row * lateral + column] = window[pixel];
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Elimination of fronts, which are processed level by level.
//
// The pivots of a panel are eliminated one after another: the weights w of the row of a pivot are divided by their sum,
// which results in ratios r, and w_ij += w_pi r_pj for all later pixels i and j. The factor contains the ratios of each
// pivot, and ROOT_SCALE divided by the sum on the diagonal, all of which are 0 for a pivot without weights, which is a
// known or missing pixel. Within a panel, it also contains the ratios below the diagonal, as a symmetric matrix.

// Update of a finished half of a front, a cell or a front.
struct Half {
    const real *update;
    int stride; // 0 for a cell
    int slack;  // index of the slack in its ring
};

__device__ inline Half half_of(const long long child, const long long *fronts, const real *below,
                               const real *cell_updates) {
    Half half;
    const long long *front = fronts + (child >= 0 ? child : 0) * FRONT_FIELDS;
    const long long cell = child <= -2 ? -2 - child : 0; // an empty half has no pixels
    half.update = child >= 0 ? below + front[WORK] : cell_updates + cell * (RING_PAIRS + RING);
    half.stride = child >= 0 ? (int)front[STRIDE] : 0;
    half.slack = child >= 0 ? (int)front[SIZE] : RING;
    return half;
}

// Weight between two pixels of the ring of a half, or a pixel and the slack; 0 if one of them is not in this half.
__device__ inline real update_of(const Half &half, const int first, const int second) {
    if (first < 0 || second < 0) return 0;
    if (half.stride) return half.update[(long long)first * half.stride + second];
    if (second == RING) return half.update[RING_PAIRS + first];
    return half.update[first < second ? ring_pair(first, second) : ring_pair(second, first)];
}

// Weight of the edge between two pixels of the grid, 0 if they are not neighbours.
__device__ inline real edge_weight(const double *vertical, const double *horizontal, const double *down_right,
                                   const double *down_left, const long long lateral, const int row, const int column,
                                   const int other_row, const int other_column) {
    const int down = other_row - row, right = other_column - column;
    if (down < -1 || down > 1 || right < -1 || right > 1) return 0;
    const long long upper = down < 0 ? other_row : row, leftmost = right < 0 ? other_column : column;
    if (right == 0) return (real)(vertical[upper * lateral + leftmost] * SCALE);
    if (down == 0) return (real)(horizontal[upper * (lateral - 1) + leftmost] * SCALE);
    return (real)((down == right ? down_right : down_left)[upper * (lateral - 1) + leftmost] * SCALE);
}

// Eliminate the pivots of a panel within their block, by one warp. Weights are above the diagonal of the block, and are
// replaced by those at the time of the elimination. Ratios are written below the diagonal, and ROOT_SCALE divided by
// the sum of the weights of each pivot on the diagonal. `beyond` contains the sums of the weights to pixels outside the
// block, and `inverses` receives the inverses of the sums.
__device__ inline void eliminate_block(real *block, const int width, const int count, const real *beyond,
                                       real *inverses, const unsigned char *unknown, const int *nodes,
                                       int *underflowed) {
    const int lane = threadIdx.x;
    real outside = lane < count ? beyond[lane] : 0, inverse_of_lane = 0;
    for (int pivot = 0; pivot < count; pivot++) {
        real *row = block + pivot * width;
        const bool later = lane > pivot && lane < count;
        real weight = later ? row[lane] : 0;
#pragma unroll 4
        for (int before = 0; before < pivot; before++)
            if (later) weight += row[before] * block[before * width + lane];
        // The earlier pivots lead to the outside, too.
        real part = lane == pivot ? outside : 0;
        if (lane < pivot) part = row[lane] * outside;
        part = warp_sum(part);
        const real total = part + warp_sum(weight);
        const real inverse = total > 0 ? 1 / total : 0;
        if (later) {
            row[lane] = weight;
            block[lane * width + pivot] = ratio_of(weight, inverse);
        }
        if (lane == pivot) {
            outside = part;
            inverse_of_lane = inverse;
            row[pivot] = total > 0 ? (real)(ROOT_SCALE / total) : 0;
            if (!(total > 0) && unknown[nodes[pivot]]) *underflowed = 1;
        }
        __syncwarp();
    }
    inverses[lane] = inverse_of_lane;
}

// Eliminate the pivots of a panel in one column of weights to later pixels, by one thread. The ratios of the block are
// below the diagonal of `block`. Both arrays have a multiple of ROWS rows, whose contents after `count` do not matter.
__device__ inline void eliminate_column(const real *block, const int width, real *column, const int column_width,
                                        const int count) {
    for (int begin = 0; begin < count; begin += ROWS) {
        real sums[ROWS];
        const real *ratios = block + begin * width;
#pragma unroll
        for (int k = 0; k < ROWS; k++) sums[k] = column[(begin + k) * column_width];
        for (int before = 0; before < begin; before += VECTOR) {
            real weights[VECTOR];
#pragma unroll
            for (int v = 0; v < VECTOR; v++) weights[v] = column[(before + v) * column_width];
#pragma unroll
            for (int k = 0; k < ROWS; k++) {
                const Vector ratio = *(const Vector *)(ratios + k * width + before);
#pragma unroll
                for (int v = 0; v < VECTOR; v++) sums[k] += ratio.values[v] * weights[v];
            }
        }
#pragma unroll
        for (int k = 1; k < ROWS; k++)
#pragma unroll
            for (int before = 0; before < k; before++) sums[k] += ratios[k * width + begin + before] * sums[before];
#pragma unroll
        for (int k = 0; k < ROWS; k++) column[(begin + k) * column_width] = sums[k];
    }
}

// Entry of the factor in the block of the pivots of a panel.
__device__ inline real block_factor(const real *block, const int width, const int row, const int column) {
    return column > row ? block[column * width + row] : block[row * width + column];
}

// Eliminate small fronts, with one block per front of 32 x n threads for n up to 8. Their panels fit into shared memory,
// and their weights are assembled where they are needed: those of a panel in shared memory, and those of later pixels
// when they are updated for the first time, which writes them only once.
//
// The columns of a panel in shared memory are the `count` pivots, and from column `padded` the later pixels and the
// slack. `shared_values` in schedule.py computes its size.
extern "C" __global__ void __launch_bounds__(256, 4)
    eliminate_fronts(GRAPH_PARAMETERS, const int *__restrict__ level, const long long *__restrict__ fronts,
                     const int *__restrict__ nodes, const int *__restrict__ in_first,
                     const int *__restrict__ in_second, const real *__restrict__ below, const long long below_size,
                     const real *__restrict__ cell_updates, const long long cells, real *work,
                     const long long work_size, real *__restrict__ factor, const long long factor_size,
                     int *underflowed) {
    DYNAMIC_SHARED(shared)
    __shared__ real beyond[PANEL], inverses[PANEL];
    const int lane = threadIdx.x, warp = threadIdx.y, warps = blockDim.y;
    const int thread = warp * WARP + lane, threads = warps * WARP;
    const long long frame = blockIdx.z;
    SELECT_GRAPH(frame)
    const long long *front = fronts + level[blockIdx.x] * FRONT_FIELDS;
    const int size = (int)front[SIZE], eliminated = (int)front[PIVOTS];
    const long long stride = front[STRIDE];
    below += frame * below_size;
    cell_updates += frame * cells * (RING_PAIRS + RING);
    work += frame * work_size + front[WORK];
    factor += frame * factor_size + front[FACTOR_START];
    nodes += front[START];
    in_first += front[START];
    in_second += front[START];
    const Half first = half_of(front[FIRST], fronts, below, cell_updates);
    const Half second = half_of(front[SECOND], fronts, below, cell_updates);

    const int most_rows = (least(eliminated, PANEL) + ROWS - 1) / ROWS * ROWS;
    const int width = (most_rows + size - least(eliminated, PANEL) + 1 + 7) / 16 * 16 + 8;
    real *panel = (real *)shared;
    // Indices of all pixels and the slack in the halves.
    short *first_places = (short *)(panel + most_rows * width), *second_places = first_places + size + 1;
    for (int j = thread; j <= size; j += threads) {
        first_places[j] = (short)(j < size ? in_first[j] : first.slack);
        second_places[j] = (short)(j < size ? in_second[j] : second.slack);
    }
    __syncthreads();

    // The pivots are on a line.
    const int row = nodes[0] / (int)lateral, column = nodes[0] - row * (int)lateral;
    const int down = eliminated > 1 && nodes[1] / (int)lateral > row, right = 1 - down;
    for (int begin = 0; begin < eliminated; begin += PANEL) {
        const int count = least(eliminated - begin, PANEL), padded = (count + ROWS - 1) / ROWS * ROWS;
        const int after = begin + count, remaining = size - after;
        // Each warp assembles ROWS / 2 rows of 32 columns.
        const int columns = size - begin + 1, strips = (columns + WARP - 1) / WARP, parts = padded / (ROWS / 2);
        for (int item = warp; item < strips * parts; item += warps) {
            const int part = item / strips, j = (item - part * strips) * WARP + lane;
            if (j >= columns) continue;
            const bool to_slack = begin + j == size;
            const int node = to_slack ? 0 : nodes[begin + j], other_row = node / (int)lateral;
            const int other_column = node - other_row * (int)lateral;
            const int in_one = first_places[begin + j], in_other = second_places[begin + j];
            real *target = panel + (j < count ? j : j - count + padded);
#pragma unroll
            for (int k = 0; k < ROWS / 2; k++) {
                const int i = part * (ROWS / 2) + k, pivot = begin + i;
                if (i >= count || j <= i) continue;
                const int own_row = row + pivot * down, own_column = column + pivot * right;
                real weight = to_slack ? (real)(slack[own_row * lateral + own_column] * SCALE)
                                       : edge_weight(vertical, horizontal, down_right, down_left, lateral, own_row,
                                                     own_column, other_row, other_column);
                if (begin == 0) {
                    weight += update_of(first, first_places[i], in_one);
                    weight += update_of(second, second_places[i], in_other);
                } else {
                    weight += work[pivot * stride + begin + j];
                }
                target[i * width] = weight;
            }
        }
        __syncthreads();
        for (int i = warp; i < count; i += warps) {
            real sum = 0;
            for (int j = lane; j <= remaining; j += WARP) sum += panel[i * width + padded + j];
            sum = warp_sum(sum);
            if (lane == 0) beyond[i] = sum;
        }
        __syncthreads();
        if (warp == 0)
            eliminate_block(panel, width, count, beyond, inverses, unknown, nodes + begin, underflowed + frame);
        __syncthreads();
        real *rows = factor + begin * stride + begin;
        for (int i = warp; i < count; i += warps)
            if (lane < count) rows[i * stride + lane] = block_factor(panel, width, i, lane);
        for (int j = thread; j <= remaining; j += threads) {
            real *column = panel + padded + j;
            eliminate_column(panel, width, column, width, count);
            for (int i = 0; i < count; i++) rows[i * stride + count + j] = ratio_of(column[i * width], inverses[i]);
        }
        __syncthreads();

        // Each warp updates ROWS rows of 32 columns at once, which are above the diagonal at least in part.
        const int later_strips = (remaining + WARP) / WARP;
        int turn = warp;
        for (int top = 0; top < remaining; top += ROWS) {
            const int skipped_strips = top / WARP;
            for (int strip = skipped_strips + turn; strip < later_strips; strip += warps) {
                const int j = least(strip * WARP + lane, remaining);
                real sums[ROWS];
#pragma unroll
                for (int k = 0; k < ROWS; k++) sums[k] = 0;
#pragma unroll 2
                for (int pivot = 0; pivot < count; pivot++) {
                    const real *row = panel + pivot * width + padded;
                    const real ratio = row[j] * inverses[pivot];
#pragma unroll
                    for (int k = 0; k < ROWS; k += VECTOR) {
                        const Vector weights = *(const Vector *)(row + top + k);
#pragma unroll
                        for (int v = 0; v < VECTOR; v++) sums[k + v] += weights.values[v] * ratio;
                    }
                }
                if (strip * WARP + lane > remaining) continue;
                real *target = work + (after + top) * stride + after + j;
                if (begin == 0) {
                    const int in_one = first_places[after + j], in_other = second_places[after + j];
#pragma unroll
                    for (int k = 0; k < ROWS; k++) {
                        if (top + k >= j || top + k >= remaining) continue;
                        const int i = after + top + k;
                        real weight = update_of(first, first_places[i], in_one);
                        weight += update_of(second, second_places[i], in_other);
                        target[k * stride] = weight + sums[k];
                    }
                } else {
#pragma unroll
                    for (int k = 0; k < ROWS; k++)
                        if (top + k < j && top + k < remaining) target[k * stride] += sums[k];
                }
            }
            // The next strip is the turn of the warp after the one that had the last strip.
            turn = (turn + (later_strips - skipped_strips) * (warps - 1)) % warps;
        }
        __syncthreads();
    }
}

// Assemble the upper triangles of large fronts from the weights of their pivots and the updates of their halves. Blocks
// have 32 x 4 threads for ASSEMBLED_ROWS rows.
extern "C" __global__ void assemble(GRAPH_PARAMETERS, const int *__restrict__ level,
                                    const long long *__restrict__ fronts, const int *__restrict__ nodes,
                                    const int *__restrict__ in_first, const int *__restrict__ in_second,
                                    const real *__restrict__ below, const long long below_size,
                                    const real *__restrict__ cell_updates, const long long cells,
                                    real *__restrict__ work, const long long work_size) {
    const long long frame = blockIdx.z;
    SELECT_GRAPH(frame)
    const long long *front = fronts + level[blockIdx.x] * FRONT_FIELDS;
    const int size = (int)front[SIZE], eliminated = (int)front[PIVOTS];
    const long long stride = front[STRIDE];
    below += frame * below_size;
    cell_updates += frame * cells * (RING_PAIRS + RING);
    work += frame * work_size + front[WORK];
    nodes += front[START];
    in_first += front[START];
    in_second += front[START];
    const Half first = half_of(front[FIRST], fronts, below, cell_updates);
    const Half second = half_of(front[SECOND], fronts, below, cell_updates);
    const int end = least(size, (int)(blockIdx.y + 1) * ASSEMBLED_ROWS);
    for (int i = (int)blockIdx.y * ASSEMBLED_ROWS + threadIdx.y; i < end; i += 4) {
        const int first_place = in_first[i], second_place = in_second[i];
        const int row = nodes[i] / (int)lateral, column = nodes[i] - row * (int)lateral;
        for (int j = i + 1 + threadIdx.x; j <= size; j += WARP) {
            real weight = 0;
            if (i < eliminated) {
                if (j == size) {
                    weight = (real)(slack[nodes[i]] * SCALE);
                } else {
                    const int other_row = nodes[j] / (int)lateral, other_column = nodes[j] - other_row * (int)lateral;
                    weight = edge_weight(vertical, horizontal, down_right, down_left, lateral, row, column, other_row,
                                         other_column);
                }
            }
            weight += update_of(first, first_place, j < size ? in_first[j] : first.slack);
            weight += update_of(second, second_place, j < size ? in_second[j] : second.slack);
            work[i * stride + j] = weight;
        }
    }
}

// Eliminate a panel of large fronts in the rows of its pivots, with one block per front. Blocks have 32 x 8 threads.
#ifdef DOUBLE_PRECISION
#define CHUNK 128 // number of columns in shared memory
#else
#define CHUNK 256
#endif
extern "C" __global__ void __launch_bounds__(256)
    eliminate_panel(const unsigned char *__restrict__ unknown, const long long pixels, const int *__restrict__ level,
                    const long long *__restrict__ fronts, const int *__restrict__ nodes, const long long panel,
                    real *work, const long long work_size, real *__restrict__ factor, const long long factor_size,
                    int *underflowed) {
    alignas(16) __shared__ real block[PANEL * (PANEL + VECTOR)]; // aligned for vector loads
    __shared__ real columns[PANEL * CHUNK];
    __shared__ real beyond[PANEL], inverses[PANEL];
    const int lane = threadIdx.x, warp = threadIdx.y, warps = blockDim.y;
    const int thread = warp * WARP + lane, threads = warps * WARP, width = PANEL + VECTOR;
    const long long frame = blockIdx.z;
    const long long *front = fronts + level[blockIdx.x] * FRONT_FIELDS;
    const int begin = (int)panel * PANEL, eliminated = (int)front[PIVOTS];
    if (begin >= eliminated) return;
    const int count = least(eliminated - begin, PANEL), remaining = (int)front[SIZE] - begin - count;
    const long long stride = front[STRIDE];
    work += frame * work_size + front[WORK] + begin * stride + begin;
    factor += frame * factor_size + front[FACTOR_START] + begin * stride + begin;
    for (int i = warp; i < count; i += warps) {
        if (lane > i && lane < count) block[i * width + lane] = work[i * stride + lane];
        real sum = 0;
        for (int j = lane; j <= remaining; j += WARP) sum += work[i * stride + count + j];
        sum = warp_sum(sum);
        if (lane == 0) beyond[i] = sum;
    }
    __syncthreads();
    if (warp == 0)
        eliminate_block(block, width, count, beyond, inverses, unknown + frame * pixels, nodes + front[START] + begin,
                        underflowed + frame);
    __syncthreads();
    for (int i = warp; i < count; i += warps)
        if (lane < count) factor[i * stride + lane] = block_factor(block, width, i, lane);
    // Every thread works on its own columns.
    for (int j = thread; j <= remaining && thread < CHUNK; j += least(threads, CHUNK)) {
        real *column = columns + thread;
#pragma unroll 8
        for (int i = 0; i < count; i++) column[i * CHUNK] = work[i * stride + count + j];
        eliminate_column(block, width, column, CHUNK, count);
        for (int i = 0; i < count; i++) {
            work[i * stride + count + j] = column[i * CHUNK];
            factor[i * stride + count + j] = ratio_of(column[i * CHUNK], inverses[i]);
        }
    }
}

// Update the weights between the remaining pixels: w_ij += sum_p w_pi r_pj. Blocks have 16 x 8 threads for a tile of 64
// x 64 weights. Each thread computes 8 rows and every sixteenth column.
extern "C" __global__ void __launch_bounds__(128)
    update(const int *__restrict__ level, const long long *__restrict__ fronts, const long long panel,
           const long long tiles, real *work, const long long work_size, const real *__restrict__ factor,
           const long long factor_size) {
    alignas(16) __shared__ real weights[PANEL][TILE]; // aligned for vector loads
    __shared__ real ratios[PANEL][TILE];
    const int x = threadIdx.x, y = threadIdx.y, thread = y * 16 + x;
    const long long frame = blockIdx.z;
    const long long *front = fronts + level[blockIdx.x] * FRONT_FIELDS;
    const int begin = (int)panel * PANEL, eliminated = (int)front[PIVOTS];
    if (begin >= eliminated) return;
    const int count = least(eliminated - begin, PANEL);
    // The blocks are those of the upper triangle of tiles, row by row.
    int tile_row = 0, tile_column = blockIdx.y;
    for (int length = (int)tiles; tile_column >= length; length--) {
        tile_column -= length;
        tile_row++;
    }
    tile_column += tile_row;
    const int size = (int)front[SIZE];
    const int top = begin + count + tile_row * TILE, left = begin + count + tile_column * TILE;
    if (left >= size) return;
    const long long stride = front[STRIDE];
    work += frame * work_size + front[WORK];
    factor += frame * factor_size + front[FACTOR_START];
    for (int index = thread; index < count * TILE; index += 128) {
        const int pivot = index / TILE, place = index % TILE;
        weights[pivot][place] = top + place < size ? work[(begin + pivot) * stride + top + place] : 0;
        ratios[pivot][place] = left + place < size ? factor[(begin + pivot) * stride + left + place] : 0;
    }
    __syncthreads();
    real sums[8][4];
#pragma unroll
    for (int a = 0; a < 8; a++)
#pragma unroll
        for (int b = 0; b < 4; b++) sums[a][b] = 0;
#pragma unroll 4
    for (int pivot = 0; pivot < count; pivot++) {
        real mine[8], theirs[4];
#pragma unroll
        for (int a = 0; a < 8; a++) mine[a] = weights[pivot][8 * y + a];
#pragma unroll
        for (int b = 0; b < 4; b++) theirs[b] = ratios[pivot][x + 16 * b];
#pragma unroll
        for (int a = 0; a < 8; a++)
#pragma unroll
            for (int b = 0; b < 4; b++) sums[a][b] += mine[a] * theirs[b];
    }
#pragma unroll
    for (int a = 0; a < 8; a++) {
        const int i = top + 8 * y + a;
#pragma unroll
        for (int b = 0; b < 4; b++) {
            const int j = left + x + 16 * b;
            if (j < size && j > i) work[i * stride + j] += sums[a][b];
        }
    }
    // The blocks of the tiles on the diagonal also update the slacks, which are to the right of all tiles.
    if (tile_row == tile_column && thread < TILE && top + thread < size) {
        real sum = 0;
        for (int pivot = 0; pivot < count; pivot++)
            sum += weights[pivot][thread] * factor[(begin + pivot) * stride + size];
        work[(top + thread) * stride + size] += sum;
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Substitution in fronts. Blocks have 32 x n threads for any n. Each block processes a group of fronts, step by step;
// no front of a step depends on another one of the same step. The fronts of each step are spread over all warps.

// Columns of the table of steps.
#define STEP_FIELDS 4
#define STEP_BEGIN 0  // index of its first front in the order of fronts
#define STEP_END 1    // index after its last front
#define STEP_PANELS 2 // maximum number of panels of its fronts
#define STEP_STRIPS 3 // maximum size of its fronts, in strips of 32 pixels

// Right-hand side of a pixel of a front, with the contributions of the halves of its rectangle.
__device__ inline real gather_right(const int i, const long long *front, const long long *fronts, const double *right,
                                    const int *nodes, const int *in_first, const int *in_second, const real *vectors,
                                    const real *ring_contributions) {
    const long long place = front[START] + i;
    real value = i < front[PIVOTS] ? (real)(right[nodes[place]] * ROOT_SCALE) : 0;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int in_half = (half ? in_second : in_first)[place];
        if (in_half < 0) continue;
        const long long child = front[FIRST + half];
        value += child >= 0 ? vectors[fronts[child * FRONT_FIELDS + START] + in_half]
                            : ring_contributions[(-2 - child) * RING + in_half];
    }
    return value;
}

#define BATCH 8 // number of independent loads that a thread issues before it uses the values

// Forward substitution in a panel within the block of its pivots, by one warp: right-hand sides `value` to those at the
// time of the elimination of each pivot.
__device__ inline real reduce_block(const real *__restrict__ block, const long long stride, const int count,
                                    real value) {
    const int lane = threadIdx.x, column = least(lane, count - 1);
    for (int begin = 0; begin < count; begin += BATCH) {
        real ratios[BATCH];
#pragma unroll
        for (int k = 0; k < BATCH; k++) ratios[k] = block[least(begin + k, count - 1) * stride + column];
#pragma unroll
        for (int k = 0; k < BATCH; k++) {
            const real other = __shfl_sync(ALL_LANES, value, begin + k);
            if (lane > begin + k && lane < count) value += ratios[k] * other;
        }
    }
    return value;
}

// Backward substitution in a panel within the block of its pivots, by one warp.
__device__ inline real substitute_block(const real *__restrict__ block, const long long stride, const int count,
                                        real value) {
    const int lane = threadIdx.x, column = least(lane, count - 1);
    for (int begin = count - 1; begin > 0; begin -= BATCH) {
        real ratios[BATCH];
#pragma unroll
        for (int k = 0; k < BATCH; k++) ratios[k] = block[(begin > k ? begin - k : 0) * stride + column];
#pragma unroll
        for (int k = 0; k < BATCH; k++) {
            const int pivot = begin > k ? begin - k : 0;
            const real other = __shfl_sync(ALL_LANES, value, pivot);
            if (lane < pivot) value += ratios[k] * other;
        }
    }
    return value;
}

// Forward substitution computes z at the pivots of the fronts, and the contributions to their rings in `vectors`.
// Backward substitution computes the solution at the pivots from z and the solution at the rings. A launch does one of
// them, or first the one and then the other.
extern "C" __global__ void __launch_bounds__(1024)
    substitute_fronts(const long long forward, const long long backward, const double *__restrict__ right,
                      const long long pixels, const int *__restrict__ groups, const int *__restrict__ steps,
                      const int *__restrict__ order, const long long *__restrict__ fronts,
                      const int *__restrict__ nodes, const int *__restrict__ in_first,
                      const int *__restrict__ in_second, const real *__restrict__ factor, const long long factor_size,
                      const real *__restrict__ ring_contributions, const long long cells,
                      const int *__restrict__ skipped, real *vectors, const long long vectors_size, real *solution) {
    const int lane = threadIdx.x, warp = threadIdx.y, warps = blockDim.y;
    const long long frame = blockIdx.z;
    if (skipped[frame]) return;
    right += frame * pixels;
    solution += frame * pixels;
    factor += frame * factor_size;
    ring_contributions += frame * cells * RING;
    vectors += frame * vectors_size;
    const int first_step = groups[blockIdx.x], last_step = groups[blockIdx.x + 1] - 1;

    for (int number = first_step; forward && number <= last_step; number++) {
        const int *step = steps + number * STEP_FIELDS;
        const int members = step[STEP_END] - step[STEP_BEGIN], panels = step[STEP_PANELS], strips = step[STEP_STRIPS];
        for (int begin = 0; begin < panels * PANEL; begin += PANEL) {
            for (int member = warp; member < members; member += warps) {
                const long long *front = fronts + order[step[STEP_BEGIN] + member] * FRONT_FIELDS;
                const int count = least((int)front[PIVOTS] - begin, PANEL);
                if (count <= 0) continue;
                const real *block = factor + front[FACTOR_START] + begin * front[STRIDE] + begin;
                real *vector = vectors + front[START] + begin;
                real value = 0;
                if (lane < count)
                    value = begin > 0 ? vector[lane]
                                      : gather_right(lane, front, fronts, right, nodes, in_first, in_second, vectors,
                                                     ring_contributions);
                value = reduce_block(block, front[STRIDE], count, value);
                if (lane < count) {
                    vector[lane] = value;
                    solution[nodes[front[START] + begin + lane]] = value * block[lane * front[STRIDE] + lane];
                }
            }
            __syncthreads();
            for (int item = warp; item < members * strips; item += warps) {
                const int member = item / strips, strip = item - member * strips;
                const long long *front = fronts + order[step[STEP_BEGIN] + member] * FRONT_FIELDS;
                const int size = (int)front[SIZE], count = least((int)front[PIVOTS] - begin, PANEL);
                const int left = begin + count + strip * WARP;
                if (count <= 0 || left >= size) continue;
                const int j = least(left + lane, size - 1);
                const long long stride = front[STRIDE];
                const real *rows = factor + front[FACTOR_START] + begin * stride + j;
                real *vector = vectors + front[START];
                const real reduced = lane < count ? vector[begin + lane] : 0;
                real value = begin > 0 ? vector[j]
                                       : gather_right(j, front, fronts, right, nodes, in_first, in_second, vectors,
                                                      ring_contributions);
                for (int pivot = 0; pivot < count; pivot += BATCH) {
                    real ratios[BATCH];
#pragma unroll
                    for (int k = 0; k < BATCH; k++) ratios[k] = rows[least(pivot + k, count - 1) * stride];
#pragma unroll
                    for (int k = 0; k < BATCH; k++)
                        value += ratios[k] * __shfl_sync(ALL_LANES, reduced, pivot + k); // 0 after the last pivot
                }
                if (left + lane < size) vector[j] = value;
            }
            __syncthreads();
        }
    }

    for (int number = last_step; backward && number >= first_step; number--) {
        const int *step = steps + number * STEP_FIELDS;
        const int members = step[STEP_END] - step[STEP_BEGIN], panels = step[STEP_PANELS], strips = step[STEP_STRIPS];
        for (int item = warp; item < members * strips; item += warps) {
            const int member = item / strips;
            const long long *front = fronts + order[step[STEP_BEGIN] + member] * FRONT_FIELDS;
            const long long j = front[PIVOTS] + (item - member * strips) * WARP + lane;
            if (j < front[SIZE]) vectors[front[START] + j] = solution[nodes[front[START] + j]];
        }
        __syncthreads();
        for (int begin = (panels - 1) * PANEL; begin >= 0; begin -= PANEL) {
            // Each warp computes four pivots at once.
            const int parts = PANEL / 4;
            for (int item = warp; item < members * parts; item += warps) {
                const long long *front = fronts + order[step[STEP_BEGIN] + item / parts] * FRONT_FIELDS;
                const int size = (int)front[SIZE], count = least((int)front[PIVOTS] - begin, PANEL);
                const int pivot = item % parts * 4;
                if (pivot >= count) continue;
                const long long stride = front[STRIDE];
                const real *rows = factor + front[FACTOR_START] + (begin + pivot) * stride;
                real *vector = vectors + front[START];
                real sums[4] = {0, 0, 0, 0};
#pragma unroll 2
                for (int j = begin + count + lane; j < size; j += WARP) {
                    const real value = vector[j];
#pragma unroll
                    for (int k = 0; k < 4; k++) sums[k] += rows[least(k, count - 1 - pivot) * stride + j] * value;
                }
                real sum_of_lane = 0;
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    const real sum = warp_sum(sums[k]);
                    if (lane == k) sum_of_lane = sum;
                }
                if (lane < 4 && pivot + lane < count) {
                    const int place = begin + pivot + lane;
                    vector[place] = solution[nodes[front[START] + place]] + sum_of_lane;
                }
            }
            __syncthreads();
            for (int member = warp; member < members; member += warps) {
                const long long *front = fronts + order[step[STEP_BEGIN] + member] * FRONT_FIELDS;
                const int count = least((int)front[PIVOTS] - begin, PANEL);
                if (count <= 0) continue;
                const real *block = factor + front[FACTOR_START] + begin * front[STRIDE] + begin;
                real *vector = vectors + front[START] + begin;
                real value = lane < count ? vector[lane] : 0;
                value = substitute_block(block, front[STRIDE], count, value);
                if (lane < count) {
                    vector[lane] = value;
                    solution[nodes[front[START] + begin + lane]] = value;
                }
            }
            __syncthreads();
        }
    }
}
