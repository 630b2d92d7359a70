// The two kernels around each operation entry by entry.
//
// A thread computes the value and the slopes of an entry once, and then its tangent along each
// direction. Where the grid has more than one row, the rows share the directions.

#define AXES 6  // of the strided kernels, once neighbouring axes are joined

// An argument: an array that may repeat along the result, with its tangents, or a number.
struct Argument {
  const void* values;    // of REAL, u8 where it is a mask; null for a number
  const REAL* tangents;  // null where it does not move
  double number;
  __device__ ACC at(i64 i, bool mask) const {
    if (!values) return (ACC)number;
    return mask ? (ACC)((const u8*)values)[i] : load((const REAL*)values, i);
  }
};

// Write the value at entry i of `size`, and its tangents. `from` is where each argument's entry
// lies, `tangent_from` the same of its tangents, `step` from one direction to the next.
template <class Operation>
__device__ inline void entry(REAL* y, REAL* ty, i64 i, i64 size, i64 directions,
                             const Argument* arguments, const i64* from, const i64* tangent_from,
                             const i64* step) {
  ACC x[Operation::COUNT], value;
  Slope slopes[Operation::COUNT];
#pragma unroll
  for (int j = 0; j < Operation::COUNT; ++j)
    x[j] = arguments[j].at(from[j], Operation::MASKED && j == 0);
  Operation::run(x, value, slopes);
  if (blockIdx.y == 0) store(y, i, value);
  for (i64 k = blockIdx.y; k < directions; k += gridDim.y) {
    ACC total = -(ACC)0;  // x + -0 is x, also for x = -0
#pragma unroll
    for (int j = 0; j < Operation::COUNT; ++j)
      if (arguments[j].tangents)
        total += moved(slopes[j], load(arguments[j].tangents, k * step[j] + tangent_from[j]));
    store(ty, k * size + i, total);
  }
}

// All arrays are contiguous: entry i of the result takes entry i % period of an argument.
template <class Operation>
__device__ inline void flat(REAL* y, REAL* ty, i64 size, i64 directions, const Argument* arguments,
                            const i64* periods) {
  for (i64 i = thread_index(); i < size; i += thread_count()) {
    i64 from[Operation::COUNT];
#pragma unroll
    for (int j = 0; j < Operation::COUNT; ++j) from[j] = periods[j] == size ? i : i % periods[j];
    entry<Operation>(y, ty, i, size, directions, arguments, from, from, periods);
  }
}

// The result is contiguous, with the given axes; arguments and their tangents have strides of their
// own, 0 along an axis on which they repeat.
template <class Operation>
__device__ inline void strided(REAL* y, REAL* ty, i64 size, i64 directions, const i64* shape,
                               const Argument* arguments, const i64 (*strides)[AXES],
                               const i64 (*tangent_strides)[AXES], const i64* steps) {
  for (i64 i = thread_index(); i < size; i += thread_count()) {
    i64 from[Operation::COUNT], tangent_from[Operation::COUNT];
#pragma unroll
    for (int j = 0; j < Operation::COUNT; ++j) from[j] = tangent_from[j] = 0;
    i64 rest = i;
#pragma unroll
    for (int axis = AXES - 1; axis >= 0; --axis) {
      if (shape[axis] == 1) continue;
      i64 place = axis ? rest % shape[axis] : rest;
      rest = axis ? rest / shape[axis] : 0;
#pragma unroll
      for (int j = 0; j < Operation::COUNT; ++j) {
        from[j] += place * strides[j][axis];
        tangent_from[j] += place * tangent_strides[j][axis];
      }
    }
    entry<Operation>(y, ty, i, size, directions, arguments, from, tangent_from, steps);
  }
}

#define SIX(x) i64 x##0, i64 x##1, i64 x##2, i64 x##3, i64 x##4, i64 x##5
#define LIST(x) {x##0, x##1, x##2, x##3, x##4, x##5}
#define RESULT REAL *y, REAL *ty, i64 size, i64 directions
#define FLAT(x) const void *x, const REAL *t##x, double number_##x, i64 period_##x
#define STRIDED(x) \
  const void *x, const REAL *t##x, double number_##x, SIX(by_##x), SIX(by_t##x), i64 step_##x
#define GIVEN(x) {x, t##x, number_##x}

#undef KERNELS_OF_1
#undef KERNELS_OF_2
#undef KERNELS_OF_3

#define KERNELS_OF_1(name)                                                            \
  extern "C" __global__ void name##_flat(RESULT, FLAT(a)) {                           \
    const Argument arguments[] = {GIVEN(a)};                                          \
    const i64 periods[] = {period_a};                                                 \
    flat<name##_operation>(y, ty, size, directions, arguments, periods);              \
  }                                                                                   \
  extern "C" __global__ void name##_strided(RESULT, SIX(n), STRIDED(a)) {             \
    const Argument arguments[] = {GIVEN(a)};                                          \
    const i64 shape[] = LIST(n), steps[] = {step_a};                                  \
    const i64 strides[][AXES] = {LIST(by_a)}, tangent_strides[][AXES] = {LIST(by_ta)}; \
    strided<name##_operation>(y, ty, size, directions, shape, arguments, strides,     \
                              tangent_strides, steps);                                \
  }

#define KERNELS_OF_2(name)                                                                   \
  extern "C" __global__ void name##_flat(RESULT, FLAT(a), FLAT(b)) {                         \
    const Argument arguments[] = {GIVEN(a), GIVEN(b)};                                       \
    const i64 periods[] = {period_a, period_b};                                              \
    flat<name##_operation>(y, ty, size, directions, arguments, periods);                     \
  }                                                                                          \
  extern "C" __global__ void name##_strided(RESULT, SIX(n), STRIDED(a), STRIDED(b)) {        \
    const Argument arguments[] = {GIVEN(a), GIVEN(b)};                                       \
    const i64 shape[] = LIST(n), steps[] = {step_a, step_b};                                 \
    const i64 strides[][AXES] = {LIST(by_a), LIST(by_b)};                                    \
    const i64 tangent_strides[][AXES] = {LIST(by_ta), LIST(by_tb)};                          \
    strided<name##_operation>(y, ty, size, directions, shape, arguments, strides,            \
                              tangent_strides, steps);                                       \
  }

#define KERNELS_OF_3(name)                                                                   \
  extern "C" __global__ void name##_flat(RESULT, FLAT(a), FLAT(b), FLAT(c)) {                \
    const Argument arguments[] = {GIVEN(a), GIVEN(b), GIVEN(c)};                             \
    const i64 periods[] = {period_a, period_b, period_c};                                    \
    flat<name##_operation>(y, ty, size, directions, arguments, periods);                     \
  }                                                                                          \
  extern "C" __global__ void name##_strided(RESULT, SIX(n), STRIDED(a), STRIDED(b),          \
                                            STRIDED(c)) {                                    \
    const Argument arguments[] = {GIVEN(a), GIVEN(b), GIVEN(c)};                             \
    const i64 shape[] = LIST(n), steps[] = {step_a, step_b, step_c};                         \
    const i64 strides[][AXES] = {LIST(by_a), LIST(by_b), LIST(by_c)};                        \
    const i64 tangent_strides[][AXES] = {LIST(by_ta), LIST(by_tb), LIST(by_tc)};             \
    strided<name##_operation>(y, ty, size, directions, shape, arguments, strides,            \
                              tangent_strides, steps);                                       \
  }
