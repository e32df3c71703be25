//! The gateway hook: gets packets for the laptop's networks out of the codespace's IP stack and answers back into it.
//!
//! The [plan] says which networks are forwarded and which addresses never are. It is pure and independent of how a
//! hook works. Each kind of hook is a module beside it: [`tun`], a TUN device with policy routes, needs `NET_ADMIN`.
//!
//! What the session needs of a hook is what [`tun::Tunnel`] offers: it is installed once (all changes journalled),
//! follows the plan, and moves packets through its device.

pub(crate) mod plan;
pub(crate) mod tun;
