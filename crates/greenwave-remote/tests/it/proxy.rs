//! A proxy that cuts connections.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A proxy on a free port before a server on the loopback. It ends with the process.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    bytes_max: Arc<AtomicUsize>,
}

impl Proxy {
    pub(crate) fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            bytes_max: Arc::new(AtomicUsize::new(usize::MAX)),
        };
        let bytes_max = proxy.bytes_max.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(("127.0.0.1", server)).unwrap());
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || forward(&from, &to, usize::MAX));
                let bytes_max = bytes_max.load(Ordering::SeqCst);
                std::thread::spawn(move || forward(&server, &client, bytes_max));
            }
        });
        proxy
    }

    /// Cuts each new connection after this number of bytes of answers.
    pub(crate) fn cut_after(&self, bytes: usize) {
        self.bytes_max.store(bytes, Ordering::SeqCst);
    }
}

/// Forwards bytes up to a limit, then closes both connections.
fn forward(mut from: &TcpStream, mut to: &TcpStream, bytes_max: usize) {
    let (mut buffer, mut forwarded) = ([0; 16 << 10], 0);
    while forwarded < bytes_max {
        let room = buffer.len().min(bytes_max - forwarded);
        match from.read(&mut buffer[..room]) {
            Ok(bytes @ 1..) if to.write_all(&buffer[..bytes]).is_ok() => forwarded += bytes,
            _ => break,
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
