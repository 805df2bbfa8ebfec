//! DWARF call frame information.
