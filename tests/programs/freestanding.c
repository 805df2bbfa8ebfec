/* A program without a C library and, as it is compiled, without call frame information: all there is
   are frame pointers. Exits with 0 if all went right. */
#include <stddef.h>

#define KEEP __attribute__((noinline, noclone))

static volatile int sink, failures, handled;

static long system_call(long number, long a, long b, long c, long d) {
    long result;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(result) : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return result;
}

static KEEP void check(int right) {
    if (!right)
        failures++;
}

static KEEP int leaf(int a) { return a * 3 + 1; }

static KEEP int calls(int a, int b, int c) {
    int u = leaf(a), v = leaf(b), w = leaf(c);
    return leaf(u + v + w) + u * v;
}

static KEEP int early(int a) {
    if (a < 0)
        return -1;
    int first = leaf(a);
    if (first > 20)
        return leaf(first);
    return calls(first, a, a + 1) + leaf(a);
}

static KEEP int recursive(int a) { return a == 0 ? leaf(0) : recursive(a - 1) + leaf(a); }

static KEEP int variable(int size) {
    volatile char *bytes = __builtin_alloca(size);
    bytes[0] = 1;
    bytes[size - 1] = 2;
    return leaf(bytes[0]) + bytes[size - 1];
}

static KEEP int aligned(int a) {
    _Alignas(64) volatile int kept[16];
    kept[a & 15] = a;
    return leaf(kept[a & 15]);
}

static KEEP int through_pointer(int (*volatile function)(int), int a) { return function(a) + leaf(a); }

static KEEP int tail(int a) { return recursive(leaf(a) & 3); }

static void handler(int signal) {
    handled++;
    sink = calls(signal, 1, 2);
}

__attribute__((naked)) static void restorer(void) { __asm__("mov $15, %rax; syscall"); }

static KEEP int work(void) {
    int sum = calls(1, 2, 3) + early(-2) + early(2) + early(9) + recursive(4) + variable(50);
    sum += aligned(3) + through_pointer(leaf, 4) + tail(5);
    return sum;
}

__attribute__((used)) int program(void) {
    struct {
        void (*handler)(int);
        unsigned long flags;
        void (*restorer)(void);
        unsigned long mask;
    } action = {handler, 0x04000000, restorer, 0};
    enum { rt_sigaction = 13, getpid = 39, kill = 62, alarm_signal = 14 };
    check(system_call(rt_sigaction, alarm_signal, (long)&action, 0, 8) == 0);
    check(work() == work());
    system_call(kill, system_call(getpid, 0, 0, 0, 0), alarm_signal, 0, 0);
    check(handled > 0);
    return failures;
}

__asm__(".globl _start\n"
        "_start:\n"
        "    xor %ebp, %ebp\n"
        "    and $-16, %rsp\n"
        "    call program\n"
        "    mov %eax, %edi\n"
        "    mov $231, %eax\n"
        "    syscall\n"
        "    hlt\n");
