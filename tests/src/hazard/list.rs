//! The list of hazards.

use super::case::Case;
use super::cases::{cfi, context, expression, found, lookup, sections, step, tables};
use crate::synthetic::AnyArch;

/// A place where unwinders go wrong.
#[derive(Clone, Copy)]
pub struct Hazard {
    /// `h01_…`.
    pub name: &'static str,
    /// Its cases for an architecture; none where it does not apply.
    pub cases: fn(AnyArch) -> Vec<Case>,
}

/// The list: hands `module::name: architectures,` for each hazard to another macro.
#[macro_export]
macro_rules! each_hazard {
    ($then:ident) => {
        $then! {
            lookup::h01_a_call_is_the_last_instruction: all,
            lookup::h02_a_signal_arrives_at_the_first_instruction: all,
            lookup::h03_gaps_belong_to_nobody: all,
            lookup::h04_functions_of_no_length_lose: all,
            lookup::h05_the_ends_of_tables: all,
            lookup::h06_offsets_from_the_table_wrap: all,
            lookup::h07_search_tables_that_lie: all,
            lookup::h08_modules_and_their_biases: all,
            lookup::h09_calls_into_nothing: all,
            lookup::h10_both_ends_of_the_address_space: all,
            cfi::h11_remember_and_restore: all,
            cfi::h12_nothing_is_left_of_an_expression: all,
            cfi::h13_registers_of_every_number: all,
            expression::h14_expressions_without_end_or_sense: all,
            sections::h15_malformed_sections: all,
            cfi::h16_an_epilogue_in_the_middle: all,
            cfi::h17_the_states_of_the_return_address: all,
            expression::h18_signed_return_addresses: aarch64s,
            expression::h19_the_procedure_linkage_table: x86s,
            expression::h19_the_old_sp_on_the_stack: all,
            expression::h19_a_cfa_on_another_register: all,
            cfi::h20_large_and_odd_frames: all,
            cfi::h21_functions_that_save_every_register: all,
            sections::h22_sections_in_rare_forms: all,
            sections::h22_pointer_encodings_of_every_kind: all,
            tables::h23_sframe_sections_that_make_no_sense: sframes,
            tables::h24_exception_handling_tables: arms,
            tables::h25_tables_of_calls_asked_elsewhere: arms,
            tables::h26_compiled_and_remembered_rules: all,
            step::h27_the_stack_does_not_shrink: all,
            step::h28_frame_pointers_that_are_none: chains,
            step::h29_ends_of_pages_and_of_the_address_space: all,
            step::h30_tables_and_frame_pointers_in_turn: chains,
            step::h31_the_first_instructions_of_a_function: all,
            step::h32_nothing_below_zero: all,
            step::h33_a_read_that_failed_is_not_remembered: all,
            step::h34_return_addresses_that_are_more_than_that: all,
            step::h35_a_return_address_that_is_its_own: all,
            context::h36_signals_on_every_stack: all,
            context::h37_snapshots_cut_at_every_word: all,
            context::h38_stacks_that_a_program_switches: all,
            context::h39_memory_that_changes_between_reads: all,
            context::h41_words_and_byte_orders_of_the_target: all,
            found::h43_a_trampoline_right_behind_a_function: trampolines,
            found::h44_a_return_to_where_execution_is: all,
            found::h45_no_end_where_execution_stopped: chains,
            found::h46_sp_behind_a_frame_record: records,
            found::h47_a_saved_register_below_sp: all,
        }
    };
}

macro_rules! list {
    ($($module:ident::$name:ident: $scope:ident,)*) => {
        /// Every hazard.
        pub const HAZARDS: &[Hazard] = &[
            $(Hazard { name: stringify!($name), cases: $module::$name },)*
        ];
    };
}

each_hazard!(list);
