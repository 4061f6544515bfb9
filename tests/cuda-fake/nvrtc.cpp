// NVRTC without a compiler, for tests: its "code" is a line that names the file, which the fake driver knows how to run.
//
// Environment: FAKE_NVRTC_ERROR (any: nothing compiles), FAKE_NVRTC_NEWEST (architecture, 100), FAKE_CUDA_LOG (a file to
// which every compilation is appended).
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>

namespace {

struct Program {
    std::string file, text, log, code;
    std::set<std::string> headers;
};

int give(const std::string &text, size_t *len, char *out) {
    if (len) *len = text.size() + 1;
    if (out) memcpy(out, text.c_str(), text.size() + 1);
    return 0;
}

} // namespace

extern "C" {

const char *nvrtcGetErrorString(int) { return "fake error"; }

int nvrtcVersion(int *major, int *minor) {
    *major = 12;
    *minor = 9;
    return 0;
}

int nvrtcGetNumSupportedArchs(int *count) {
    *count = 2;
    return 0;
}

int nvrtcGetSupportedArchs(int *archs) {
    const char *newest = getenv("FAKE_NVRTC_NEWEST");
    archs[0] = 50;
    archs[1] = newest ? atoi(newest) : 90;
    return 0;
}

int nvrtcCreateProgram(void **program, const char *text, const char *file, int n, const char *const *headers, const char *const *names) {
    Program *p = new Program{file, text, "", "", {}};
    for (int i = 0; i < n; i++) {
        if (strlen(headers[i]) > 0) p->headers.insert(names[i]);
    }
    *program = p;
    return 0;
}

int nvrtcDestroyProgram(void **program) {
    delete (Program *)*program;
    *program = nullptr;
    return 0;
}

int nvrtcCompileProgram(void *program, int n, const char *const *options) {
    Program &p = *(Program *)program;
    std::string target;
    bool exact = false;
    for (int i = 0; i < n; i++) {
        std::string option = options[i];
        const std::string arch = "--gpu-architecture=";
        if (option.compare(0, arch.size(), arch) == 0) target = option.substr(arch.size());
        exact = exact || option == "--fmad=false";
    }
    if (const char *path = getenv("FAKE_CUDA_LOG")) {
        if (FILE *f = fopen(path, "a")) {
            fprintf(f, "compile %s %s\n", p.file.c_str(), target.c_str());
            fclose(f);
        }
    }
    bool good = exact && !target.empty() && p.headers.count("base.cuh") && p.text.find("TM_") != std::string::npos;
    if (!good || getenv("FAKE_NVRTC_ERROR")) {
        p.log = p.file + "(7): error: identifier \"fake\" is undefined";
        return 6;
    }
    std::string name = p.file;
    for (char &c : name) {
        if (c == '/') c = '-';
    }
    p.code = "FAKE CODE " + name + " " + target + "\n";
    return 0;
}

int nvrtcGetProgramLogSize(void *program, size_t *len) { return give(((Program *)program)->log, len, nullptr); }
int nvrtcGetProgramLog(void *program, char *out) { return give(((Program *)program)->log, nullptr, out); }
int nvrtcGetCUBINSize(void *program, size_t *len) { return give(((Program *)program)->code, len, nullptr); }
int nvrtcGetCUBIN(void *program, char *out) { return give(((Program *)program)->code, nullptr, out); }
int nvrtcGetPTXSize(void *program, size_t *len) { return give(((Program *)program)->code, len, nullptr); }
int nvrtcGetPTX(void *program, char *out) { return give(((Program *)program)->code, nullptr, out); }

} // extern "C"
