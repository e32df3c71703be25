//! getaddrinfo and getnameinfo of the C library that gh-net is linked with.

use std::ffi::{CStr, CString};
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, SocketAddr};
use std::ptr;

use socket2::{SockAddr, SockAddrStorage};

/// Why a lookup has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::resolver) enum LookupError {
    /// There is no such name (EAI_NONAME).
    NoName,
    /// The name has no addresses (EAI_NODATA).
    NoData,
    /// The lookup failed; whether the name exists is unknown.
    Failed,
}

fn reason(code: libc::c_int) -> LookupError {
    /// As in glibc and musl; the libc crate does not define it.
    const EAI_NODATA: libc::c_int = -5;
    match code {
        libc::EAI_NONAME => LookupError::NoName,
        EAI_NODATA => LookupError::NoData,
        _ => LookupError::Failed,
    }
}

/// The addresses of a name, of both families. Blocks.
pub(super) fn getaddrinfo(name: &str) -> Result<Vec<IpAddr>, LookupError> {
    let name = CString::new(name).map_err(|_| LookupError::Failed)?;
    let mut list = ptr::null_mut();
    // SAFETY: the C library requires zero in the other fields of the hints. No AI_ADDRCONFIG, since the codespace's
    // families matter, not the laptop's, and no AI_V4MAPPED.
    let hints = libc::addrinfo { ai_socktype: libc::SOCK_STREAM, ..unsafe { zeroed() } };
    // SAFETY: the name ends with NUL, there is no service, and `list` takes the result.
    let code = unsafe { libc::getaddrinfo(name.as_ptr(), ptr::null(), &raw const hints, &raw mut list) };
    if code != 0 {
        return Err(reason(code));
    }
    let mut addresses = Vec::new();
    let mut entry = list;
    while !entry.is_null() {
        // SAFETY: a successful getaddrinfo gives a list that ends with a null pointer.
        let info = unsafe { &*entry };
        addresses.extend(address_in(info));
        entry = info.ai_next;
    }
    // SAFETY: the list came from getaddrinfo and is not used again.
    unsafe { libc::freeaddrinfo(list) };
    Ok(addresses)
}

fn address_in(info: &libc::addrinfo) -> Option<IpAddr> {
    let length = info.ai_addrlen as usize;
    if info.ai_addr.is_null() || length > size_of::<SockAddrStorage>() {
        return None;
    }
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: the entry has an address of that length, which fits the storage; socket2 looks at its family.
    let address = unsafe {
        ptr::copy_nonoverlapping(info.ai_addr.cast::<u8>(), (&raw mut storage).cast::<u8>(), length);
        SockAddr::new(storage, info.ai_addrlen)
    };
    address.as_socket().map(|socket| socket.ip())
}

/// The name of an address. Blocks.
pub(super) fn getnameinfo(address: IpAddr) -> Result<String, LookupError> {
    let socket = SockAddr::from(SocketAddr::new(address, 0));
    // NI_MAXHOST.
    let mut host = [0 as libc::c_char; 1025];
    // SAFETY: address and buffer are passed with their lengths; no service is wanted.
    let code = unsafe {
        libc::getnameinfo(
            socket.as_ptr().cast(),
            socket.len(),
            host.as_mut_ptr(),
            host.len() as libc::socklen_t,
            ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    if code != 0 {
        return Err(reason(code));
    }
    // SAFETY: on success there is a NUL within the buffer.
    let host = unsafe { CStr::from_ptr(host.as_ptr()) };
    host.to_str().map(str::to_owned).map_err(|_| LookupError::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_c_library_is_asked() {
        assert!(getaddrinfo("localhost").unwrap().iter().all(IpAddr::is_loopback));
        assert_eq!(getaddrinfo("nul\0byte"), Err(LookupError::Failed));
        assert!(getnameinfo("127.0.0.1".parse().unwrap()).is_ok_and(|name| !name.is_empty()));
    }
}
