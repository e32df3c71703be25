//! The lanes of a link: several streams that carry the frames of one link in one order.
//!
//! # Theory of operation
//!
//! OpenSSH gives a channel a window of 2 MiB, which is 160 Mbit/s over 100 ms, whatever the line can do. So a long fast
//! link has several channels, its lanes. Even a single connection has to become faster by them, so the packets of one
//! flow are spread over all lanes.
//!
//! - **How many.** A lane is asked for when rate × round trip comes near what the lanes of the link can carry. A short line has one.
//! - **The first lane** is the link itself. As soon as there are others, it carries only frames about the link (pings,
//!   reports), which then wait for no packet. All other frames have a number and take the other lanes; the
//!   [striper](Striper) puts each on the one with the least under way.
//! - **One order.** The receiver [merges](Merge) the lanes by the numbers, which increase on each of them. It does not read
//!   a lane whose next frame has to wait for another lane's: that waits in the lane's own window, so nothing is kept here but
//!   one frame of each lane, whatever numbers the other end sends.
//! - **Of the whole link, not of each flow.** The lanes share one ssh connection, which is one TCP connection: a lost segment delays
//!   all of them alike, and sshd serves them in turn. So nothing is gained by letting flows pass each other, and what a single
//!   lane guarantees still holds (a reset arrives before the goodbye).
//! - **Beginning.** Number 0 takes the first lane, behind all that was sent without a number.
//! - **Reports.** [`Frame::Delivered`](crate::frame::Frame::Delivered) counts packets whose turn has come. The sender
//!   knows which lane had each packet, so that one count says what every lane has delivered, and a receiver can't report one
//!   lane's bytes as another's.
//! - **End.** A lane that ends takes the link with it. The session resumes on another link, and every connection sends again
//!   what was not acknowledged. To send only the lost lane's frames again would need a copy of all that is under way, for an event
//!   that is as rare as a lost link. A lane that stays open and does not bring the frame for which the others wait ends the link
//!   after [`MAX_WAIT`], so no gap waits for ever.
//!
//! [`Striper`] and [`Merge`] are pure.

mod limits;
mod merge;
#[cfg(feature = "framed")]
mod streams;
mod striper;

pub use limits::{LANE_CAP, MAX_LANES, MAX_WAIT};
pub use merge::Merge;
#[cfg(feature = "framed")]
pub use streams::{LinkReader, LinkWriter};
pub use striper::{Place, Striper};

#[cfg(test)]
mod tests;
