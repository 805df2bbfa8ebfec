/* A program without a C library that crashes in a signal handler, below a recursion:
 *
 *   _start → main → again(3) → again(2) → again(1) → again(0) → callback → ‖ → handler → array → crash
 *
 * where ‖ is the signal that the trap in `callback` raises. The same signal again, in `crash`, ends
 * the program with a core dump.
 *
 * On RISC-V and LoongArch there is no handler, and `callback` ends it: handlers return by way of the
 * vDSO there, which qemu leaves out of its cores.
 */

typedef unsigned long word;

#define NOINLINE __attribute__((noinline))

/* What differs: the return address of the outermost frame is undefined; one system call
 * (rt_sigaction) and the layout of its argument; an instruction that raises SIGILL or SIGTRAP. */
#if defined __aarch64__
#define OUTERMOST __asm__ volatile(".cfi_undefined x30")
#define RT_SIGACTION 134
#define TRAP __asm__ volatile("udf #0")
static long call(long number, long a, long b, long c, long d) {
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c, x3 __asm__("x3") = d;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return x0;
}
#elif defined __riscv
#define OUTERMOST __asm__ volatile(".cfi_undefined ra")
#define RT_SIGACTION 134
#define TRAP __asm__ volatile("unimp")
static long call(long number, long a, long b, long c, long d) {
    register long a7 __asm__("a7") = number, a0 __asm__("a0") = a, a1 __asm__("a1") = b;
    register long a2 __asm__("a2") = c, a3 __asm__("a3") = d;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2), "r"(a3) : "memory");
    return a0;
}
#elif defined __s390x__
#define OUTERMOST __asm__ volatile(".cfi_undefined %r14")
#define RT_SIGACTION 174
#define TRAP __asm__ volatile(".word 0")
static long call(long number, long a, long b, long c, long d) {
    register long r1 __asm__("r1") = number, r2 __asm__("r2") = a, r3 __asm__("r3") = b;
    register long r4 __asm__("r4") = c, r5 __asm__("r5") = d;
    __asm__ volatile("svc 0" : "+d"(r2) : "d"(r1), "d"(r3), "d"(r4), "d"(r5) : "memory");
    return r2;
}
#elif defined __powerpc64__
#define OUTERMOST __asm__ volatile(".cfi_undefined lr")
#define RT_SIGACTION 173
#define TRAP __asm__ volatile(".long 0")
static long call(long number, long a, long b, long c, long d) {
    register long r0 __asm__("r0") = number, r3 __asm__("r3") = a, r4 __asm__("r4") = b;
    register long r5 __asm__("r5") = c, r6 __asm__("r6") = d;
    __asm__ volatile("sc" : "+r"(r3) : "r"(r0), "r"(r4), "r"(r5), "r"(r6) : "memory", "cr0");
    return r3;
}
#elif defined __mips__
#define OUTERMOST __asm__ volatile(".cfi_undefined $31")
#if _MIPS_SIM == _ABIO32
#define RT_SIGACTION 4194
#else
#define RT_SIGACTION 5013
#endif
#define TRAP __asm__ volatile(".word 0x0000003d")
static long call(long number, long a, long b, long c, long d) {
    register long v0 __asm__("$2") = number, a0 __asm__("$4") = a, a1 __asm__("$5") = b;
    register long a2 __asm__("$6") = c, a3 __asm__("$7") = d;
    __asm__ volatile("syscall"
                     : "+r"(v0), "+r"(a3)
                     : "r"(a0), "r"(a1), "r"(a2)
                     : "memory", "$1", "$3", "$8", "$9", "$10", "$11", "$12", "$13", "$14", "$15", "$24", "$25");
    return v0;
}
#elif defined __arm__
/* The tables of EHABI cannot say it beside others; the kernel starts with 0 in lr. */
#define OUTERMOST
/* What the tables name, of the C library that is not there. */
void __aeabi_unwind_cpp_pr0(void) {}
void __aeabi_unwind_cpp_pr1(void) {}
#define RT_SIGACTION 174
#define TRAP __asm__ volatile("udf #0")
static long call(long number, long a, long b, long c, long d) {
    register long r7 __asm__("r7") = number, r0 __asm__("r0") = a, r1 __asm__("r1") = b;
    register long r2 __asm__("r2") = c, r3 __asm__("r3") = d;
    __asm__ volatile("svc #0" : "+r"(r0) : "r"(r7), "r"(r1), "r"(r2), "r"(r3) : "memory");
    return r0;
}
#elif defined __x86_64__
#define OUTERMOST __asm__ volatile(".cfi_undefined rip")
#define RT_SIGACTION 13
#define TRAP __asm__ volatile("ud2")
static long call(long number, long a, long b, long c, long d) {
    register long r10 __asm__("r10") = d;
    long result = number;
    __asm__ volatile("syscall" : "+a"(result) : "D"(a), "S"(b), "d"(c), "r"(r10) : "memory", "rcx", "r11");
    return result;
}
#elif defined __i386__
#define OUTERMOST __asm__ volatile(".cfi_undefined eip")
#define RT_SIGACTION 174
#define TRAP __asm__ volatile("ud2")
static long call(long number, long a, long b, long c, long d) {
    long result = number;
    __asm__ volatile("int $0x80" : "+a"(result) : "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
    return result;
}
#elif defined __loongarch64
#define OUTERMOST __asm__ volatile(".cfi_undefined 1")
#define RT_SIGACTION 134
#define TRAP __asm__ volatile(".word 0")
static long call(long number, long a, long b, long c, long d) {
    register long a7 __asm__("$a7") = number, a0 __asm__("$a0") = a, a1 __asm__("$a1") = b;
    register long a2 __asm__("$a2") = c, a3 __asm__("$a3") = d;
    __asm__ volatile("syscall 0"
                     : "+r"(a0)
                     : "r"(a7), "r"(a1), "r"(a2), "r"(a3)
                     : "memory", "$t0", "$t1", "$t2", "$t3", "$t4", "$t5", "$t6", "$t7", "$t8");
    return a0;
}
#else
#error "not known"
#endif

enum { ILL = 4, SIGNAL_SET_BYTES = 8 };

#if defined __mips__
#undef SIGNAL_SET_BYTES
enum { MIPS_SIGNAL_SET_BYTES = 16 };
#define SIGNAL_SET_BYTES MIPS_SIGNAL_SET_BYTES
struct action { unsigned flags; void (*handler)(int); word mask[16]; };
#define ACTION(of) { 0, of, { 0 } }
#elif defined __x86_64__ || defined __i386__
/* There programs tell the kernel how to return from a handler: as C libraries do, by rt_sigreturn.
 * SA_RESTORER, and SA_SIGINFO, without which i386 has another frame. */
#if defined __x86_64__
__asm__(".globl restorer\n\tnop\nrestorer:\n\tmov $15, %rax\n\tsyscall\n");
#else
__asm__(".globl restorer\n\tnop\nrestorer:\n\tmov $173, %eax\n\tint $0x80\n");
#endif
extern void restorer(void);
struct action { void (*handler)(int); word flags; void (*restorer)(void); word mask[2]; };
#define ACTION(of) { of, 0x04000004, restorer, { 0, 0 } }
#elif defined __riscv || defined __loongarch64
struct action { void (*handler)(int); word flags; word mask[2]; };
#define ACTION(of) { of, 0, { 0, 0 } }
#else
struct action { void (*handler)(int); word flags; void (*restorer)(void); word mask[2]; };
#define ACTION(of) { of, 0, 0, { 0, 0 } }
#endif

static volatile int zero;

NOINLINE static int crash(int n) {
    TRAP;
    return n + zero;
}

/* A frame whose size is not known when it is compiled. */
NOINLINE static int array(int n) {
    volatile char room[n + 1];
    room[n] = 1;
    return room[n] + crash(n) + zero;
}

NOINLINE static void handler(int signal) {
    zero = array(signal + 100) + zero;
}

NOINLINE static int callback(int n) {
    TRAP;
    return n + zero;
}

NOINLINE static int again(int n, int (*last)(int)) {
    return (n ? again(n - 1, last) : last(n)) + zero;
}

NOINLINE int main(void) {
    static struct action action = ACTION(handler);
#if !defined __riscv && !defined __loongarch64
    call(RT_SIGACTION, ILL, (long)&action, 0, SIGNAL_SET_BYTES);
#else
    (void)&action, (void)call;
#endif
    return again(3, callback) + zero;
}

void _start(void) {
    OUTERMOST;
    zero = main() + zero;
    for (;;) {
    }
}
