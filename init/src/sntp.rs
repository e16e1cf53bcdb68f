//! Turns what time servers say (SNTP: RFC 5905, section 14) into what is to be done about the clock: a pure [`keeper`] with a socket beside it ([`ask`]).
pub mod ask;
pub mod keeper;
pub mod majority;
pub mod packet;
mod words;
