/* Frames that no compiler makes, each with call frame information that is right at every
   instruction. All take one number in %rdi and return leaf_c of it (a C function), plus 1 for most. */

        .text

/* CFA = *(%rsp + 0x40) + 8: the old %rsp is kept on a realigned stack, as OpenSSL does. */
        .globl  saved_sp
        .type   saved_sp, @function
saved_sp:
        .cfi_startproc
        mov     %rsp, %rax
        .cfi_def_cfa_register rax
        sub     $0x88, %rsp
        and     $-64, %rsp
        mov     %rax, 0x40(%rsp)
        /* DW_CFA_def_cfa_expression: breg7 0x40; deref; plus_uconst 8 */
        .cfi_escape 0x0f, 0x06, 0x77, 0xc0, 0x00, 0x06, 0x23, 0x08
        call    leaf_c
        inc     %rax
        mov     0x40(%rsp), %rdx
        .cfi_def_cfa rdx, 8
        mov     %rdx, %rsp
        .cfi_def_cfa_register rsp
        ret
        .cfi_endproc
        .size   saved_sp, . - saved_sp

/* CFA in %rbx, which is kept over calls. */
        .globl  cfa_in_rbx
        .type   cfa_in_rbx, @function
cfa_in_rbx:
        .cfi_startproc
        push    %rbx
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset rbx, 0
        mov     %rsp, %rbx
        .cfi_def_cfa_register rbx
        and     $-32, %rsp
        sub     $0x20, %rsp
        call    leaf_c
        inc     %rax
        mov     %rbx, %rsp
        .cfi_def_cfa_register rsp
        pop     %rbx
        .cfi_adjust_cfa_offset -8
        .cfi_restore rbx
        ret
        .cfi_endproc
        .size   cfa_in_rbx, . - cfa_in_rbx

/* CFA in %r13, far above it; many registers saved below by expressions with %r13. */
        .globl  cfa_in_r13
        .type   cfa_in_r13, @function
cfa_in_r13:
        .cfi_startproc
        push    %r13
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset r13, 0
        lea     -0x100(%rsp), %r13
        .cfi_def_cfa r13, 0x110
        push    %rbp
        .cfi_offset rbp, -24
        xor     %ebp, %ebp
        sub     $0x208, %rsp
        call    leaf_c
        inc     %rax
        add     $0x208, %rsp
        pop     %rbp
        .cfi_restore rbp
        .cfi_def_cfa rsp, 16
        pop     %r13
        .cfi_adjust_cfa_offset -8
        .cfi_restore r13
        ret
        .cfi_endproc
        .size   cfa_in_r13, . - cfa_in_r13

/* The return address leaves the stack for a register, as in vfork, and comes back. A leaf. */
        .globl  return_in_r8
        .type   return_in_r8, @function
return_in_r8:
        .cfi_startproc
        pop     %r8
        .cfi_adjust_cfa_offset -8
        .cfi_register rip, r8
        lea     (%rdi,%rdi,2), %rax
        nop
        add     $2, %rax
        push    %r8
        .cfi_adjust_cfa_offset 8
        .cfi_offset rip, -8
        ret
        .cfi_endproc
        .size   return_in_r8, . - return_in_r8

/* The same in a register that calls keep, over a call; and it returns by a jump. */
        .globl  return_in_r12
        .type   return_in_r12, @function
return_in_r12:
        .cfi_startproc
        push    %r12
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset r12, 0
        mov     8(%rsp), %r12
        .cfi_register rip, r12
        movq    $0, 8(%rsp)
        call    leaf_c
        inc     %rax
        mov     %r12, %rdx
        .cfi_register rip, rdx
        pop     %r12
        .cfi_adjust_cfa_offset -8
        .cfi_restore r12
        add     $8, %rsp
        .cfi_adjust_cfa_offset -8
        jmp     *%rdx
        .cfi_endproc
        .size   return_in_r12, . - return_in_r12

/* val_offset: the caller's %rbp is a place in this frame. */
        .globl  value_offset
        .type   value_offset, @function
value_offset:
        .cfi_startproc
        push    %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset rbp, 0
        lea     -0x40(%rsp), %rbp
        call    value_offset_callee
        pop     %rbp
        .cfi_adjust_cfa_offset -8
        .cfi_restore rbp
        ret
        .cfi_endproc
        .size   value_offset, . - value_offset

/* Its caller's %rbp always is this CFA - 0x40: it is not saved at all. */
        .type   value_offset_callee, @function
value_offset_callee:
        .cfi_startproc
        .cfi_val_offset rbp, -0x40
        sub     $24, %rsp
        .cfi_adjust_cfa_offset 24
        mov     $0x1234567, %ebp
        call    leaf_c
        inc     %rax
        lea     -0x20(%rsp), %rbp
        add     $24, %rsp
        .cfi_adjust_cfa_offset -24
        lea     -0x38(%rsp), %rbp
        ret
        .cfi_endproc
        .size   value_offset_callee, . - value_offset_callee

/* Registers saved in registers, and %rbp in one of them. */
        .globl  in_registers
        .type   in_registers, @function
in_registers:
        .cfi_startproc
        mov     %rbp, %r8
        .cfi_register rbp, r8
        mov     %rbx, %r9
        .cfi_register rbx, r9
        mov     %rdi, %rbp
        lea     (%rdi,%rdi,2), %rbx
        lea     2(%rbx), %rax
        mov     %r9, %rbx
        .cfi_restore rbx
        mov     %r8, %rbp
        .cfi_restore rbp
        ret
        .cfi_endproc
        .size   in_registers, . - in_registers

/* Several ways out, each with its own epilogue, and code after them. */
        .globl  several_ways_out
        .type   several_ways_out, @function
several_ways_out:
        .cfi_startproc
        push    %rbp
        .cfi_def_cfa_offset 16
        .cfi_offset rbp, -16
        mov     %rsp, %rbp
        .cfi_def_cfa_register rbp
        push    %rbx
        .cfi_offset rbx, -24
        sub     $8, %rsp
        mov     %rdi, %rbx
        test    $1, %dil
        jne     1f
        call    leaf_c
        inc     %rax
        .cfi_remember_state
        add     $8, %rsp
        pop     %rbx
        .cfi_restore rbx
        pop     %rbp
        .cfi_restore rbp
        .cfi_def_cfa rsp, 8
        ret
1:
        .cfi_restore_state
        call    leaf_c
        .cfi_remember_state
        inc     %rax
        mov     -8(%rbp), %rbx
        .cfi_restore rbx
        leave
        .cfi_restore rbp
        .cfi_def_cfa rsp, 8
        ret
        .cfi_restore_state
        ud2
        .cfi_endproc
        .size   several_ways_out, . - several_ways_out

/* Arguments that the callee takes off the stack. */
        .globl  callee_pops
        .type   callee_pops, @function
callee_pops:
        .cfi_startproc
        push    %rdi
        .cfi_adjust_cfa_offset 8
        push    %rdi
        .cfi_adjust_cfa_offset 8
        call    pops_two
        .cfi_adjust_cfa_offset -16
        ret
        .cfi_endproc
        .size   callee_pops, . - callee_pops

        .type   pops_two, @function
pops_two:
        .cfi_startproc
        mov     8(%rsp), %rdi
        call    leaf_c
        inc     %rax
        ret     $16
        .cfi_endproc
        .size   pops_two, . - pops_two

/* enter and leave. */
        .globl  entered
        .type   entered, @function
entered:
        .cfi_startproc
        enter   $0x20, $0
        .cfi_def_cfa rbp, 16
        .cfi_offset rbp, -16
        call    leaf_c
        inc     %rax
        leave
        .cfi_restore rbp
        .cfi_def_cfa rsp, 8
        ret
        .cfi_endproc
        .size   entered, . - entered

/* Calls through a retpoline: a return that is a jump. */
        .globl  through_retpoline
        .type   through_retpoline, @function
through_retpoline:
        .cfi_startproc
        sub     $8, %rsp
        .cfi_adjust_cfa_offset 8
        lea     leaf_c(%rip), %rax
        call    retpoline_rax
        inc     %rax
        add     $8, %rsp
        .cfi_adjust_cfa_offset -8
        ret
        .cfi_endproc
        .size   through_retpoline, . - through_retpoline

        .type   retpoline_rax, @function
retpoline_rax:
        .cfi_startproc
        call    2f
        .cfi_adjust_cfa_offset 8
1:      pause
        jmp     1b
2:      mov     %rax, (%rsp)
        ret
        .cfi_endproc
        .size   retpoline_rax, . - retpoline_rax

/* A return that is a jump, in place: the target is pushed first. */
        .globl  pushed_jump
        .type   pushed_jump, @function
pushed_jump:
        .cfi_startproc
        lea     tail_plus_one(%rip), %rax
        push    %rax
        .cfi_adjust_cfa_offset 8
        ret
        .cfi_endproc
        .size   pushed_jump, . - pushed_jump

        .type   tail_plus_one, @function
tail_plus_one:
        .cfi_startproc
        sub     $8, %rsp
        .cfi_adjust_cfa_offset 8
        call    leaf_c
        inc     %rax
        add     $8, %rsp
        .cfi_adjust_cfa_offset -8
        ret
        .cfi_endproc
        .size   tail_plus_one, . - tail_plus_one

/* A call that only fetches the pc. */
        .globl  fetches_pc
        .type   fetches_pc, @function
fetches_pc:
        .cfi_startproc
        call    1f
1:      .cfi_adjust_cfa_offset 8
        pop     %rdx
        .cfi_adjust_cfa_offset -8
        sub     $8, %rsp
        .cfi_adjust_cfa_offset 8
        call    leaf_c
        inc     %rax
        add     $8, %rsp
        .cfi_adjust_cfa_offset -8
        ret
        .cfi_endproc
        .size   fetches_pc, . - fetches_pc

/* Goes over to another stack for a call. CFA = *(%rsp) + 8 there. */
        .globl  on_another_stack
        .type   on_another_stack, @function
on_another_stack:
        .cfi_startproc
        mov     %rsp, %rax
        .cfi_def_cfa_register rax
        lea     oracle_stack_above_end-16(%rip), %rsp
        mov     %rax, (%rsp)
        /* DW_CFA_def_cfa_expression: breg7 0; deref; plus_uconst 8 */
        .cfi_escape 0x0f, 0x05, 0x77, 0x00, 0x06, 0x23, 0x08
        call    leaf_c
        inc     %rax
        mov     (%rsp), %rsp
        .cfi_def_cfa rsp, 8
        ret
        .cfi_endproc
        .size   on_another_stack, . - on_another_stack

/* The last instruction is a call that does not come back; the next function has another frame. */
        .globl  ends_in_call
        .type   ends_in_call, @function
ends_in_call:
        .cfi_startproc
        push    %rbx
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset rbx, 0
        sub     $0x40, %rsp
        .cfi_adjust_cfa_offset 0x40
        mov     %rsp, %rbx
        call    jumps_back
        .cfi_endproc
        .size   ends_in_call, . - ends_in_call

        .globl  behind_the_call
        .type   behind_the_call, @function
behind_the_call:
        .cfi_startproc
        push    %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset rbp, 0
        mov     %rsp, %rbp
        .cfi_def_cfa_register rbp
        mov     $7, %eax
        pop     %rbp
        .cfi_def_cfa rsp, 8
        .cfi_restore rbp
        ret
        .cfi_endproc
        .size   behind_the_call, . - behind_the_call

/* A large function without padding whose unwind rule changes at its very last byte. */
        .globl  frame_of_one_instruction
        .type   frame_of_one_instruction, @function
frame_of_one_instruction:
        .cfi_startproc
        sub     $0x12348, %rsp
        .cfi_adjust_cfa_offset 0x12348
        call    leaf_c
        inc     %rax
        add     $0x12348, %rsp
        .cfi_adjust_cfa_offset -0x12348
        ret
        .cfi_endproc
        .size   frame_of_one_instruction, . - frame_of_one_instruction

/* %rbp as a number, no frame pointer at all, with a call. */
        .globl  rbp_is_data
        .type   rbp_is_data, @function
rbp_is_data:
        .cfi_startproc
        push    %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset rbp, 0
        mov     $0x12345, %ebp
        call    leaf_c
        inc     %rax
        pop     %rbp
        .cfi_adjust_cfa_offset -8
        .cfi_restore rbp
        ret
        .cfi_endproc
        .size   rbp_is_data, . - rbp_is_data

/* No call frame information: one that keeps the frame pointer chain, one that only moves %rsp, one
   that breaks the chain. */
        .globl  uncovered_chain
        .type   uncovered_chain, @function
uncovered_chain:
        push    %rbp
        mov     %rsp, %rbp
        sub     $0x30, %rsp
        call    leaf_c
        inc     %rax
        leave
        ret
        .size   uncovered_chain, . - uncovered_chain

        .globl  uncovered_no_chain
        .type   uncovered_no_chain, @function
uncovered_no_chain:
        sub     $0x18, %rsp
        call    leaf_c
        inc     %rax
        add     $0x18, %rsp
        ret
        .size   uncovered_no_chain, . - uncovered_no_chain

        .globl  uncovered_data
        .type   uncovered_data, @function
uncovered_data:
        push    %rbp
        mov     $1, %ebp
        call    leaf_c
        inc     %rax
        lea     8(%rsp), %rbp
        call    leaf_again
        pop     %rbp
        ret
        .size   uncovered_data, . - uncovered_data

        .type   leaf_again, @function
leaf_again:
        nop
        ret
        .size   leaf_again, . - leaf_again

/* Looks like other things: bytes of calls and returns inside of other instructions. */
        .globl  disguised
        .type   disguised, @function
disguised:
        .cfi_startproc
        mov     $0xc3c3c3c3, %eax
        mov     $0xe8e8e8e8, %edx
        movabs  $0xd0ffd0ffd0ffd0ff, %rcx
        lea     (%rdi,%rdi,2), %rax
        add     $2, %rax
        rep     ret
        .cfi_endproc
        .size   disguised, . - disguised

        .bss
        .balign 4096
        .globl  oracle_stack_above
        .type   oracle_stack_above, @object
oracle_stack_above:
        .skip   0x4000
oracle_stack_above_end:
        .size   oracle_stack_above, . - oracle_stack_above

        .section .note.GNU-stack, "", @progbits
