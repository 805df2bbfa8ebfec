/* Calls the functions of assembly.S. Exits with 0 if all went right. */
#include <setjmp.h>
#include <stddef.h>

typedef long function(long);

extern function saved_sp, cfa_in_rbx, cfa_in_r13, return_in_r8, return_in_r12, value_offset, in_registers,
    several_ways_out, callee_pops, entered, through_retpoline, pushed_jump, fetches_pc, on_another_stack,
    frame_of_one_instruction, rbp_is_data, uncovered_chain, uncovered_no_chain, uncovered_data, disguised;
extern void ends_in_call(long), jumps_back(long);

static volatile int failures;
static jmp_buf back;

__attribute__((noinline, noclone)) long leaf_c(long a) {
    volatile long kept = a;
    return kept * 3 + 1;
}

void jumps_back(long a) { longjmp(back, (int)leaf_c(a)); }

int main(void) {
    function *const functions[] = {
        saved_sp,     cfa_in_rbx,  cfa_in_r13,         return_in_r8,     return_in_r12,     value_offset,
        in_registers, several_ways_out, callee_pops,   entered,          through_retpoline, pushed_jump,
        fetches_pc,   on_another_stack, frame_of_one_instruction, rbp_is_data, uncovered_chain,
        uncovered_no_chain, uncovered_data, disguised,
    };
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        for (long a = 4; a < 6; a++)
            if (functions[i](a) != a * 3 + 2)
                failures = failures * 100 + (int)i + 1;
    int value = setjmp(back);
    if (value == 0)
        ends_in_call(5);
    return failures != 0 || value != 16 ? failures + 1 : 0;
}
