//! pair_ends
