//! The gdb remote protocol, as much of it as is needed: one thread, over a unix socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use super::target::{Asked, Slot, Target};

/// How long the emulator may take for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why the program stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// A step is done, or a breakpoint was met.
    Trap,
    /// A signal is about to be delivered; its number in gdb's own counting.
    Signal(u8),
    /// The program is over: its status.
    Exited(u8),
    /// It was killed by a signal.
    Killed(u8),
}

/// A connection to the stub.
pub(super) struct Remote {
    stream: UnixStream,
    buffer: Vec<u8>,
    thread: String,
}

impl Remote {
    /// Connects to the stub of `emulator`, which may still be starting.
    pub(super) fn connect(path: &Path, emulator: &mut Child) -> io::Result<Self> {
        let begin = Instant::now();
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) if begin.elapsed() > PATIENCE => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
            if let Some(status) = emulator.try_wait()? {
                return Err(io::Error::other(format!("the emulator ended at once: {status}")));
            }
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut remote = Remote { stream, buffer: Vec::new(), thread: String::new() };
        remote.ask("qSupported:multiprocess+")?;
        // Only who has asked for this may ask for single registers. (Where there is none, nothing is to be had so.)
        remote.ask("qXfer:features:read:target.xml:0,ff")?;
        let stop = remote.ask("?")?;
        remote.thread = field(&stop, "thread:").ok_or_else(|| bad("?", &stop))?.to_owned();
        Ok(remote)
    }

    /// The register slots of `target`; 0 in those that are asked for alone.
    pub(super) fn registers(&mut self, target: &Target) -> io::Result<Vec<u64>> {
        let reply = self.ask("g")?;
        let bytes = from_hex(&reply).ok_or_else(|| bad("g", &reply))?;
        let value = |slot: &Slot| match slot.asked {
            Asked::Together { offset, size } => {
                let bytes = bytes.get(offset..offset + size).ok_or_else(|| bad("g", &reply))?;
                Ok(target.word_of(bytes))
            }
            Asked::Alone(_) => Ok(0),
        };
        target.slots.iter().map(value).collect()
    }

    /// Completes `registers` with those slots that are asked for alone.
    pub(super) fn complete(&mut self, registers: &mut [u64], target: &Target) -> io::Result<()> {
        for (slot, register) in target.slots.iter().zip(registers) {
            if let Asked::Alone(number) = slot.asked {
                let question = format!("p{number:x}");
                let reply = self.ask(&question)?;
                let bytes = from_hex(&reply);
                let first = bytes.as_deref().and_then(|bytes| bytes.get(..8));
                *register = target.word_of(first.ok_or_else(|| bad(&question, &reply))?);
            }
        }
        Ok(())
    }

    /// Memory by the protocol: slow, but certain.
    pub(super) fn memory(&mut self, address: u64, length: usize) -> io::Result<Vec<u8>> {
        let question = format!("m{address:x},{length:x}");
        let reply = self.ask(&question)?;
        from_hex(&reply).ok_or_else(|| bad(&question, &reply))
    }

    /// Executes one instruction.
    pub(super) fn step(&mut self) -> io::Result<Stop> {
        self.resume("s")
    }

    /// Goes on until a breakpoint, delivering `signal` first (0: none).
    pub(super) fn go_on(&mut self, signal: u8) -> io::Result<Stop> {
        let action =
            if signal == 0 { "vCont;c".to_owned() } else { format!("vCont;C{signal:02x}:{}", self.thread) };
        self.resume(&action)
    }

    /// Sets or removes a breakpoint.
    pub(super) fn breakpoint(&mut self, set: bool, address: u64, target: &Target) -> io::Result<()> {
        let letter = if set { 'Z' } else { 'z' };
        let question = format!("{letter}0,{address:x},{}", target.breakpoint);
        match self.ask(&question)?.as_str() {
            "OK" => Ok(()),
            reply => Err(bad(&question, reply)),
        }
    }

    fn resume(&mut self, action: &str) -> io::Result<Stop> {
        let reply = self.ask(action)?;
        let code = reply.get(1..3).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (reply.as_bytes().first(), code) {
            (Some(b'T' | b'S'), Some(5)) => Ok(Stop::Trap),
            (Some(b'T' | b'S'), Some(signal)) => Ok(Stop::Signal(signal)),
            (Some(b'W'), Some(status)) => Ok(Stop::Exited(status)),
            (Some(b'X'), Some(signal)) => Ok(Stop::Killed(signal)),
            _ => Err(bad(action, &reply)),
        }
    }

    fn ask(&mut self, question: &str) -> io::Result<String> {
        let sum = question.bytes().fold(0u8, u8::wrapping_add);
        // The `+` acknowledges the reply before.
        self.stream.write_all(format!("+${question}#{sum:02x}").as_bytes())?;
        loop {
            if let Some(start) = self.buffer.iter().position(|byte| *byte == b'$')
                && let Some(length) = self.buffer[start..].iter().position(|byte| *byte == b'#')
                && self.buffer.len() >= start + length + 3
            {
                let reply = String::from_utf8_lossy(&self.buffer[start + 1..start + length]).into_owned();
                self.buffer.drain(..start + length + 3);
                return Ok(reply);
            }
            let mut more = [0; 8192];
            match self.stream.read(&mut more)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => self.buffer.extend_from_slice(&more[..length]),
            }
        }
    }
}

fn bad(question: &str, reply: &str) -> io::Error {
    io::Error::other(format!("unexpected reply of the gdb stub to {question:?}: {reply:?}"))
}

fn field<'r>(reply: &'r str, name: &str) -> Option<&'r str> {
    reply.split_once(name)?.1.split(';').next()
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
