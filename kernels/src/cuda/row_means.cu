// Mean square of each row, for formats that weigh errors by it: one lane per row, because the reference adds first to
// last. `blocks` of the job counts rows, `out` is one float for each.
#include "num.cuh"

// 128 bytes of f32: whole lines of the cache.
constexpr i32 STEP = 32;

template <class T> TM_FN void row_mean(T team, const Job &job, u64 row, NoScratch &) {
    team.each(1, [&](i32) {
        u64 first = row * job.row_len, last = first + job.row_len;
        float sum = 0.0f;
        for (; first + STEP <= last; first += STEP) {
            float x[STEP];
            load(job, first, x);
            TM_UNROLL for (i32 i = 0; i < STEP; i++) sum += x[i] * x[i];
        }
        for (; first < last; first++) {
            float x = weight(job, first);
            sum += x * x;
        }
        ((float *)job.out)[row] = sum / (float)job.row_len;
    });
}

TM_KERNEL(row_means, Team<1>, 1, NoScratch, row_mean)
