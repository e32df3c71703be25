//! The states of a connection.

/// The states of RFC 9293, 3.3.2 for a side that is always opened passively, and one more before them, in which the
/// answer to the SYN waits for the host's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// A SYN has come; the host's socket is connecting. Legal: RST from the peer, an outcome from the host.
    Connecting,
    /// The host's socket is connected, SYN and ACK are sent.
    SynReceived,
    /// Both directions are open.
    Established,
    /// The host has ended and our FIN is sent; the codespace may still send.
    FinWait1,
    /// Our FIN is acknowledged; the codespace may still send.
    FinWait2,
    /// The codespace has ended; the host may still send.
    CloseWait,
    /// Both FINs are sent, ours is not acknowledged.
    Closing,
    /// The codespace ended first, our FIN is sent.
    LastAck,
    /// Both directions have ended. The peer may not know yet, and old segments may still arrive.
    TimeWait,
    /// Nothing is left to do.
    Closed,
}

impl State {
    /// After our FIN was sent for the first time.
    pub(super) fn fin_sent(self) -> Self {
        match self {
            Self::Established => Self::FinWait1,
            Self::CloseWait => Self::LastAck,
            Self::Connecting
            | Self::SynReceived
            | Self::FinWait1
            | Self::FinWait2
            | Self::Closing
            | Self::LastAck
            | Self::TimeWait
            | Self::Closed => self,
        }
    }

    /// After our FIN was acknowledged.
    pub(super) fn fin_acknowledged(self) -> Self {
        match self {
            Self::FinWait1 => Self::FinWait2,
            Self::Closing => Self::TimeWait,
            Self::LastAck => Self::Closed,
            Self::Connecting
            | Self::SynReceived
            | Self::Established
            | Self::FinWait2
            | Self::CloseWait
            | Self::TimeWait
            | Self::Closed => self,
        }
    }

    /// After everything up to the codespace's FIN has arrived.
    pub(super) fn fin_received(self) -> Self {
        match self {
            Self::Established => Self::CloseWait,
            Self::FinWait1 => Self::Closing,
            Self::FinWait2 => Self::TimeWait,
            Self::Connecting
            | Self::SynReceived
            | Self::CloseWait
            | Self::Closing
            | Self::LastAck
            | Self::TimeWait
            | Self::Closed => self,
        }
    }

    /// Whether the handshake with the codespace is complete and the connection not over.
    pub(super) fn is_synchronized(self) -> bool {
        !matches!(self, Self::Connecting | Self::SynReceived | Self::TimeWait | Self::Closed)
    }
}
