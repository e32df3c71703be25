//! getaddrinfo and getnameinfo of the C library that gh-net is linked with.

use std::ffi::{CStr, CString};
use std::net::{IpAddr, SocketAddr};
use std::ptr;

use nix::sys::socket::{SockaddrLike, SockaddrStorage};

/// Why a lookup has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LookupError {
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
pub(crate) fn getaddrinfo(name: &str) -> Result<Vec<IpAddr>, LookupError> {
    let name = CString::new(name).map_err(|_| LookupError::Failed)?;
    let mut list = ptr::null_mut();
    // The C library requires zero in all other fields. No AI_ADDRCONFIG, since the codespace's families matter, not the
    // laptop's, and no AI_V4MAPPED.
    let hints = libc::addrinfo {
        ai_socktype: libc::SOCK_STREAM,
        ai_flags: 0,
        ai_family: libc::AF_UNSPEC,
        ai_protocol: 0,
        ai_addrlen: 0,
        ai_addr: ptr::null_mut(),
        ai_canonname: ptr::null_mut(),
        ai_next: ptr::null_mut(),
    };
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
    // SAFETY: the entry's address has that length. nix looks at the family first, and compares the length with it.
    let address = unsafe { SockaddrStorage::from_raw(info.ai_addr, Some(info.ai_addrlen)) }?;
    let v4 = address.as_sockaddr_in().map(|it| it.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|it| it.ip().into()))
}

/// The name of an address. Blocks.
pub(crate) fn getnameinfo(address: IpAddr) -> Result<String, LookupError> {
    let socket = SockaddrStorage::from(SocketAddr::new(address, 0));
    // NI_MAXHOST.
    let mut host = [0_u8; 1025];
    // SAFETY: address and buffer are passed with their lengths; no service is wanted.
    let code = unsafe {
        libc::getnameinfo(
            socket.as_ptr(),
            socket.len(),
            host.as_mut_ptr().cast(),
            host.len() as libc::socklen_t,
            ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    if code != 0 {
        return Err(reason(code));
    }
    let host = CStr::from_bytes_until_nul(&host).map_err(|_| LookupError::Failed)?;
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
