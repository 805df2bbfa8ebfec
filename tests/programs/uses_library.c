/* Calls through the PLT, bound when called first or at start; loads and unloads a library while
   it runs (the path is an argument). Exits with 0 if all went right. */
#include <dlfcn.h>
#include <stddef.h>

#define KEEP __attribute__((noinline, noclone))

int library_leaf(int), library_calls(int (*)(int), int), library_per_thread(int), library_ifunc(int), library_tail(int);
long library_many(long, long, long, long, long, long, long, double, double);
extern __thread int per_thread;

static int failures;

static KEEP void check(int right) {
    if (!right)
        failures++;
}

static KEEP int callback(int a) { return library_tail(a) + 2; }

static KEEP int loads(const char *path) {
    void *library = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
    if (library == NULL)
        return 0;
    int (*calls)(int (*)(int), int) = (int (*)(int (*)(int), int))dlsym(library, "library_calls");
    int sum = calls ? calls(callback, 3) : 0;
    dlclose(library);
    return sum == 10 + 15;
}

int main(int argc, char **argv) {
    for (int round = 0; round < 2; round++) {
        check(library_leaf(2) == 7);
        check(library_calls(callback, 1) == 9 + 4);
        check(library_per_thread(1) == 6 + round && per_thread == 6 + round);
        check(library_ifunc(1) == 5);
        check(library_tail(1) == 7);
        check(library_many(1, 2, 3, 4, 5, 6, 7, 8.0, 9.0) == 45);
    }
    if (argc > 1)
        check(loads(argv[1]));
    return failures;
}
