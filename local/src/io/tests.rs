//! The io with its engine, between a codespace made of smoltcp and real servers on the loopback interface.

mod codespace;
mod datagrams;
mod links;
mod streams;
