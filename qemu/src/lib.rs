//! Starts, watches, scripts and stops virtual machines, always bounded in time.
