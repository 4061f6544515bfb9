// A CUDA driver without a device, for tests: the functions that `crates/cuda` calls, on the processor.
//
// Device memory is the machine's, between guards; kernels are the same `cuda.cu` files compiled as plain C++, one
// library each, beside this one in `kernels/`. What is queued on a stream runs when the stream is waited for, and not
// before: whoever touches memory too early gets wrong bytes. Nobody gets away with a pointer that is not the device's.
//
// Environment: FAKE_CUDA_DEVICES (1), FAKE_CUDA_ARCH (90), FAKE_CUDA_MEMORY (bytes, 1 GiB), FAKE_CUDA_OOM_AT (the
// allocation, counted from 1, from which on memory is out), FAKE_CUDA_LOST_AT (the launch that loses the device),
// FAKE_CUDA_BAD_IMAGE (any: no code loads), FAKE_CUDA_SPOIL (any: copies from the device are wrong), FAKE_CUDA_LOG (a file to which launches and allocations are appended).
#include "base.cuh"
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace {

enum Result { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_IMAGE = 200, NOT_FOUND = 500, LAUNCH_FAILED = 719 };

const u64 GUARD = 64;

std::recursive_mutex lock;
typedef std::lock_guard<std::recursive_mutex> Hold;
std::map<u64, u64> device_memory, host_memory; // address and length
u64 allocations = 0, launches = 0, used = 0;
bool lost = false;
thread_local bool bound = false;

long setting(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}

void note(const char *what, const char *more) {
    const char *path = getenv("FAKE_CUDA_LOG");
    if (!path) return;
    FILE *f = fopen(path, "a");
    if (!f) return;
    fprintf(f, "%s %s\n", what, more);
    fclose(f);
}

void wrong(const char *what) {
    fprintf(stderr, "fake CUDA driver: %s\n", what);
    abort();
}

bool inside(const std::map<u64, u64> &memory, u64 address, u64 len) {
    auto after = memory.upper_bound(address);
    if (after == memory.begin()) return false;
    auto found = std::prev(after);
    return address + len <= found->first + found->second;
}

void check_guard(u64 address, u64 len) {
    for (u64 i = 0; i < GUARD; i++) {
        if (((u8 *)address)[len + i] != 0xc3) wrong("a kernel or copy wrote behind its memory");
    }
}

struct Stream {
    std::vector<std::function<void()>> queue;
};

typedef void (*Kernel)(const Job *, u32);

// What every call on a context needs; a lost device stays lost.
#define NEED_CONTEXT                                                                                                   \
    Hold hold(lock);                                                                                                   \
    if (!bound) wrong("no context is current");                                                                        \
    if (lost) return LAUNCH_FAILED;

} // namespace

extern "C" {

int cuInit(unsigned) { return setting("FAKE_CUDA_DEVICES", 1) > 0 ? OK : NO_DEVICE; }

int cuDriverGetVersion(int *version) {
    *version = 12080;
    return OK;
}

int cuDeviceGetCount(int *count) {
    *count = (int)setting("FAKE_CUDA_DEVICES", 1);
    return OK;
}

int cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return ordinal < setting("FAKE_CUDA_DEVICES", 1) ? OK : INVALID_VALUE;
}

int cuDeviceGetName(char *name, int len, int device) {
    snprintf(name, (size_t)len, "Fake device %d", device);
    return OK;
}

int cuDeviceTotalMem_v2(size_t *bytes, int) {
    *bytes = (size_t)setting("FAKE_CUDA_MEMORY", 1l << 30);
    return OK;
}

int cuDeviceGetAttribute(int *value, int attribute, int) {
    long arch = setting("FAKE_CUDA_ARCH", 90);
    if (attribute != 75 && attribute != 76) return INVALID_VALUE;
    *value = (int)(attribute == 75 ? arch / 10 : arch % 10);
    return OK;
}

int cuDevicePrimaryCtxSetFlags_v2(int, unsigned) { return OK; }

int cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = (void *)(u64)(device + 1);
    return OK;
}

int cuDevicePrimaryCtxRelease_v2(int) {
    Hold hold(lock);
    if (!device_memory.empty() || !host_memory.empty()) wrong("memory was not freed before its context");
    return OK;
}

int cuCtxSetCurrent(void *context) {
    bound = context != nullptr;
    return lost ? LAUNCH_FAILED : OK;
}

int cuMemGetInfo_v2(size_t *free, size_t *total) {
    NEED_CONTEXT
    *total = (size_t)setting("FAKE_CUDA_MEMORY", 1l << 30);
    *free = *total - used;
    return OK;
}

int cuMemAlloc_v2(u64 *address, size_t len) {
    NEED_CONTEXT
    allocations++;
    char text[64];
    snprintf(text, sizeof text, "%zu", len);
    note("allocate", text);
    long from = setting("FAKE_CUDA_OOM_AT", 0);
    if (from && allocations >= (u64)from) return OUT_OF_MEMORY;
    if (used + len > (u64)setting("FAKE_CUDA_MEMORY", 1l << 30)) return OUT_OF_MEMORY;
    u8 *memory = (u8 *)aligned_alloc(256, (len + GUARD + 255) / 256 * 256);
    if (!memory) return OUT_OF_MEMORY;
    // What nobody wrote is garbage.
    memset(memory, 0xa5, len);
    memset(memory + len, 0xc3, GUARD);
    *address = (u64)memory;
    device_memory[*address] = len;
    used += len;
    return OK;
}

int cuMemFree_v2(u64 address) {
    Hold hold(lock);
    auto found = device_memory.find(address);
    if (found == device_memory.end()) wrong("freed what was not allocated");
    check_guard(address, found->second);
    used -= found->second;
    free((void *)address);
    device_memory.erase(found);
    return lost ? LAUNCH_FAILED : OK;
}

int cuMemHostAlloc(void **memory, size_t len, unsigned) {
    NEED_CONTEXT
    *memory = malloc(len);
    if (!*memory) return OUT_OF_MEMORY;
    memset(*memory, 0x5a, len);
    host_memory[(u64)*memory] = len;
    return OK;
}

int cuMemFreeHost(void *memory) {
    Hold hold(lock);
    if (!host_memory.erase((u64)memory)) wrong("freed what was not allocated");
    free(memory);
    return lost ? LAUNCH_FAILED : OK;
}

int cuMemcpyHtoD_v2(u64 to, const void *from, size_t len) {
    NEED_CONTEXT
    if (!inside(device_memory, to, len)) wrong("copied outside the device's memory");
    memcpy((void *)to, from, len);
    return OK;
}

int cuStreamCreate(void **stream, unsigned) {
    NEED_CONTEXT
    *stream = new Stream;
    return OK;
}

int cuStreamDestroy_v2(void *stream) {
    Hold hold(lock);
    if (!((Stream *)stream)->queue.empty() && !lost) wrong("a stream was destroyed before it was waited for");
    delete (Stream *)stream;
    return lost ? LAUNCH_FAILED : OK;
}

int cuMemcpyHtoDAsync_v2(u64 to, const void *from, size_t len, void *stream) {
    NEED_CONTEXT
    if (!inside(device_memory, to, len)) wrong("copied outside the device's memory");
    if (!inside(host_memory, (u64)from, len)) wrong("copied from memory that is not pinned");
    ((Stream *)stream)->queue.push_back([=] { memcpy((void *)to, from, len); });
    return OK;
}

int cuMemcpyDtoHAsync_v2(void *to, u64 from, size_t len, void *stream) {
    NEED_CONTEXT
    if (!inside(device_memory, from, len)) wrong("copied outside the device's memory");
    if (!inside(host_memory, (u64)to, len)) wrong("copied to memory that is not pinned");
    bool spoil = getenv("FAKE_CUDA_SPOIL") != nullptr;
    ((Stream *)stream)->queue.push_back([=] {
        memcpy(to, (void *)from, len);
        if (spoil && len > 1024) ((u8 *)to)[1024] ^= 1; // the first block behind the flags
    });
    return OK;
}

int cuStreamSynchronize(void *stream) {
    std::vector<std::function<void()>> queue;
    {
        NEED_CONTEXT
        queue.swap(((Stream *)stream)->queue);
    }
    for (auto &step : queue) step();
    Hold hold(lock);
    for (auto &m : device_memory) check_guard(m.first, m.second);
    return lost ? LAUNCH_FAILED : OK;
}

// An image is the line that the compiler made: what it is, and the file that it came from.
int cuModuleLoadData(void **module, const void *image) {
    NEED_CONTEXT
    char name[256];
    bool good = sscanf((const char *)image, "FAKE CODE %255s", name) == 1 && !getenv("FAKE_CUDA_BAD_IMAGE");
    if (!good) return INVALID_IMAGE;
    Dl_info self;
    dladdr((void *)cuModuleLoadData, &self);
    std::string path = self.dli_fname;
    path = path.substr(0, path.rfind('/')) + "/kernels/" + name + ".so";
    *module = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!*module) wrong(dlerror());
    return OK;
}

int cuModuleUnload(void *) { return OK; }

int cuModuleGetFunction(void **function, void *module, const char *name) {
    NEED_CONTEXT
    *function = dlsym(module, name);
    note("kernel", name);
    return *function ? OK : NOT_FOUND;
}

int cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared, void *stream, void **parameters, void **extra) {
    NEED_CONTEXT
    Job job;
    memcpy(&job, parameters[0], sizeof job);
    launches++;
    Dl_info info;
    dladdr(function, &info);
    char text[128];
    snprintf(text, sizeof text, "%s %llu", info.dli_sname, job.blocks);
    note("launch", text);
    bool shape = grid_y == 1 && grid_z == 1 && block_x == 128 && block_y == 1 && block_z == 1 && shared == 0 && !extra;
    if (!shape || (u64)grid_x * block_x < job.blocks) wrong("a kernel was launched with another shape");
    u64 row_bytes = job.row_len * (job.input == 0 ? 4 : 2);
    bool mine = inside(device_memory, (u64)job.x, row_bytes) && inside(device_memory, (u64)job.out, 1);
    // Means of rows have neither.
    mine = mine && (!job.bad || (inside(device_memory, (u64)job.bad, 8) && inside(device_memory, (u64)job.odd, 4)));
    mine = mine && (!job.importance || inside(device_memory, (u64)job.importance, job.row_len * 4));
    mine = mine && (!job.row_means || inside(device_memory, (u64)job.row_means, 4));
    mine = mine && (!job.tables || inside(device_memory, (u64)job.tables, 1));
    if (!mine) wrong("a kernel was given memory that is not the device's");
    bool aligned = ((u64)job.x | (u64)job.importance | (u64)job.out | (u64)job.tables) % 16 == 0;
    if (!aligned) wrong("a kernel was given memory that is not aligned");
    bool last = launches == (u64)setting("FAKE_CUDA_LOST_AT", 0);
    u32 order = launches % 3 == 2 ? 7 : (u32)(launches % 3);
    ((Stream *)stream)->queue.push_back([=] {
        if (last) {
            Hold hold(lock);
            lost = true;
        } else {
            ((Kernel)function)(&job, order);
        }
    });
    return OK;
}

// Times are of no meaning here, but `examples/check` asks for them.
int cuEventCreate(void **event, unsigned) {
    *event = new int;
    return OK;
}
int cuEventRecord(void *, void *) { return OK; }
int cuEventElapsedTime(float *milliseconds, void *, void *) {
    *milliseconds = 1.0f;
    return OK;
}
int cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t len, void *stream) {
    NEED_CONTEXT
    if (!inside(device_memory, to, len) || !inside(device_memory, from, len)) wrong("copied outside the device's memory");
    ((Stream *)stream)->queue.push_back([=] { memcpy((void *)to, (void *)from, len); });
    return OK;
}

int cuGetErrorName(int code, const char **text) {
    *text = code == LAUNCH_FAILED ? "CUDA_ERROR_LAUNCH_FAILED" : code == INVALID_IMAGE ? "CUDA_ERROR_INVALID_IMAGE" : "CUDA_ERROR";
    return OK;
}

int cuGetErrorString(int code, const char **text) {
    *text = code == LAUNCH_FAILED ? "unspecified launch failure" : code == INVALID_IMAGE ? "device kernel image is invalid" : "error";
    return OK;
}

} // extern "C"
