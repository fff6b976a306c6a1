//! A pseudo terminal, for what programs do only in front of a person.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::client::Invocation;

/// A program that believes a person sits in front of it.
#[derive(Debug)]
pub struct Session {
    child: std::process::Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    seen: String,
}

impl Session {
    /// Starts `invocation` with the terminal as all three standard streams.
    pub fn start(invocation: Invocation) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo terminal");
        grantpt(&master).expect("grant the terminal");
        unlockpt(&master).expect("unlock the terminal");
        // Narrower than the longest results: they must not be cut.
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).expect("set the terminal's size");
        let name = ptsname(&master, Vec::new()).expect("the terminal's name");
        let path = name.to_str().expect("a terminal's name is text").to_owned();
        let slave = || {
            let file = File::options().read(true).write(true).open(&path);
            Stdio::from(OwnedFd::from(file.expect("open the terminal")))
        };
        let mut command: Command = invocation.into_command();
        let child = command.stdin(slave()).stdout(slave()).stderr(slave()).spawn();
        let child = child.expect("start a program on the terminal");
        // The program's copies of the terminal must be the only ones, or its end is never seen.
        drop(command);
        let master = File::from(master);
        let mut output = master.try_clone().expect("a second handle on the terminal");
        let (send, screen) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                if send.send(buffer[..read].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { child, keyboard: master, screen, seen: String::new() }
    }

    /// Types `text`.
    pub fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("type");
    }

    /// Gives the terminal another size.
    pub fn resizes(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.keyboard, size).expect("set the terminal's size");
        let child = rustix::process::Pid::from_child(&self.child);
        // It is not the terminal's foreground process, so the kernel does not tell it.
        let _ = rustix::process::kill_process(child, rustix::process::Signal::WINCH);
    }

    /// Waits until the screen has shown `text`.
    pub fn sees(&mut self, text: &str) {
        let deadline = Instant::now() + crate::wait::PATIENCE;
        while !self.seen.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("the screen never showed {text:?}:\n{}", self.seen)
                }
            }
        }
    }

    /// Waits for the end; exit code and everything the screen showed.
    pub fn end(mut self) -> (i32, String) {
        let status = self.child.wait().expect("wait for the program");
        while let Ok(bytes) = self.screen.recv_timeout(Duration::from_millis(200)) {
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
        (status.code().unwrap_or(-1), self.seen)
    }
}
