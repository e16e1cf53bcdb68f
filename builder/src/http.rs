//! A URL becomes bytes: bounded in size and time, tried again after a fault, resumed where it broke off.
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use sha2::{Digest as _, Sha256};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use crate::store::Digest;

/// An HTTP client. Cheap to clone; connections are shared.
///
/// Proxies come from the environment (`https_proxy`, `http_proxy`, `no_proxy`), certificates from the system's bundle or `SSL_CERT_FILE`:
/// networks with an inspecting proxy of their own are common where machines are built.
#[derive(Debug, Clone)]
pub struct Http {
    agent: Agent,
    attempts: u32,
}

/// The server has another file than the one that is wanted, or none.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Other(String);

/// A fault of one attempt.
#[derive(Debug)]
enum Fault {
    /// Trying again may help.
    Passing(anyhow::Error),
    /// It will not.
    Lasting(anyhow::Error),
}

impl Http {
    /// A client that tries each thing at most five times.
    pub fn new() -> Result<Http> {
        let found = rustls_native_certs::load_native_certs();
        if found.certs.is_empty()
            && let Some(error) = found.errors.into_iter().next()
        {
            return Err(anyhow::Error::new(error).context("reading the system's certificate bundle"));
        }
        let certificates: Vec<_> = found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&certificates)).build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .user_agent(concat!("kscratch-image/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(Duration::from_secs(15)))
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            // A server that sends nothing for so long has died; a slow one may take as long as it needs.
            .timeout_per_read(Some(Duration::from_secs(30)))
            .build();
        Ok(Http { agent: config.new_agent(), attempts: 5 })
    }

    /// The same client, trying each thing `attempts` times.
    pub fn attempts(mut self, attempts: u32) -> Http {
        self.attempts = attempts.max(1);
        self
    }

    /// Whether a URL answers `HEAD` with success within `patience`, asked once.
    pub fn answers(&self, url: &str, patience: Duration) -> bool {
        let request = self.agent.head(url).config().timeout_global(Some(patience)).build();
        request.call().is_ok_and(|response| response.status().is_success())
    }

    /// How long the thing at a URL is, asked with `HEAD`.
    pub fn length(&self, url: &str) -> Result<u64> {
        let response = self.agent.head(url).call().with_context(|| format!("asking for the length of {url}"))?;
        let length = response.headers().get("content-length").and_then(|length| length.to_str().ok()?.parse().ok());
        match length {
            Some(length) if response.status().is_success() => Ok(length),
            _ => Err(anyhow!("the server answers {} and names no length", response.status())
                .context(format!("asking for the length of {url}"))),
        }
    }

    /// The whole of a small thing, refused beyond `limit` bytes; `None` where the server says that there is none (404, 410).
    pub fn get_if_any(&self, url: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        self.persist(|| {
            let (status, body) = self.ask(url, 0)?;
            if matches!(status, 404 | 410) {
                return Ok(None);
            }
            expect_status(status, &[200])?;
            let announced = body.content_length();
            let mut bytes = Vec::new();
            body.into_reader().take(limit + 1).read_to_end(&mut bytes).map_err(passing)?;
            if bytes.len() as u64 > limit {
                return Err(Fault::Lasting(anyhow!(
                    "it is longer than {limit} bytes, which is more than it should be"
                )));
            }
            match announced {
                Some(announced) if announced != bytes.len() as u64 => {
                    Err(Fault::Passing(anyhow!("it broke off after {} of {announced} bytes", bytes.len())))
                }
                _ => Ok(Some(bytes)),
            }
        })
        .with_context(|| format!("fetching {url}"))
    }

    /// The whole of a small thing, refused beyond `limit` bytes.
    pub fn get(&self, url: &str, limit: u64) -> Result<Vec<u8>> {
        self.get_if_any(url, limit)?.with_context(|| format!("fetching {url}: the server does not have it (404)"))
    }

    /// Downloads to `part`, going on from what is in it already, until it has `size` bytes with the digest `sha256`.
    /// `progress` is told the bytes that are new on disk (or were found there). A file with another digest is deleted.
    pub fn download(
        &self,
        url: &str,
        part: &Path,
        size: u64,
        sha256: &Digest,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(part)
            .with_context(|| format!("opening {}", part.display()))?;
        let found = file.metadata()?.len();
        if found > size {
            file.set_len(0)?;
        }
        let resumed = file.metadata()?.len() > 0;
        progress(file.metadata()?.len());
        self.fill(url, &mut file, size, progress).with_context(|| format!("fetching {url}"))?;
        let mut actual = digest_of(&mut file)?;
        if actual != *sha256 && resumed {
            // The part of an earlier run may be of another file, or torn by a power cut: once from the start.
            file.set_len(0)?;
            self.fill(url, &mut file, size, &mut |_| {}).with_context(|| format!("fetching {url}"))?;
            actual = digest_of(&mut file)?;
        }
        if actual != *sha256 {
            std::fs::remove_file(part).with_context(|| format!("removing {}", part.display()))?;
            let other = Other(format!("its digest is {actual}, expected {sha256}"));
            return Err(anyhow!(other).context(format!("fetching {url}")));
        }
        file.sync_all().with_context(|| format!("writing {} to disk", part.display()))
    }

    /// Appends to a file until it has `size` bytes.
    fn fill(&self, url: &str, file: &mut File, size: u64, progress: &mut dyn FnMut(u64)) -> Result<()> {
        self.persist(|| {
            let mut have = file.seek(SeekFrom::End(0)).map_err(lasting)?;
            if have == size {
                return Ok(());
            }
            let (status, body) = self.ask(url, have)?;
            expect_status(status, &[200, 206])?;
            if status == 200 && have > 0 {
                // The server ignored the range and sends everything.
                file.set_len(0).map_err(lasting)?;
                have = file.seek(SeekFrom::Start(0)).map_err(lasting)?;
            }
            if let Some(announced) = body.content_length()
                && have + announced != size
            {
                let other = Other(format!("the server's file has {} bytes, expected {size}", have + announced));
                return Err(Fault::Lasting(other.into()));
            }
            let mut body = body.into_reader();
            let mut buffer = vec![0; 128 << 10];
            while have < size {
                let wanted = buffer.len().min(usize::try_from(size - have).unwrap_or(usize::MAX));
                match body.read(&mut buffer[..wanted]) {
                    Ok(0) => return Err(Fault::Passing(anyhow!("it broke off after {have} of {size} bytes"))),
                    Ok(read) => {
                        file.write_all(&buffer[..read]).map_err(lasting)?;
                        have += read as u64;
                        progress(read as u64);
                    }
                    Err(error) => return Err(passing(error)),
                }
            }
            Ok(())
        })
    }

    /// One request, from byte `from` on.
    fn ask(&self, url: &str, from: u64) -> Result<(u16, Body), Fault> {
        // Archives are packed already, and a length that a proxy changed by packing again could not be checked.
        let mut request = self.agent.get(url).header("Accept-Encoding", "identity");
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        let response = request.call().map_err(|error| match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::TooManyRedirects => {
                Fault::Lasting(error.into())
            }
            other => Fault::Passing(other.into()),
        })?;
        let (head, body) = response.into_parts();
        if head.status == 206 && from > 0 {
            let starts = format!("bytes {from}-");
            let range = head.headers.get("Content-Range").and_then(|range| range.to_str().ok()).unwrap_or_default();
            if !range.starts_with(&starts) {
                return Err(Fault::Lasting(anyhow!("asked for bytes from {from} on, the server sent `{range}`")));
            }
        }
        Ok((head.status.as_u16(), body))
    }

    /// Tries until it works, with growing pauses.
    fn persist<T>(&self, mut attempt: impl FnMut() -> Result<T, Fault>) -> Result<T> {
        let mut tried = 1;
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(Fault::Lasting(error)) => return Err(error),
                Err(Fault::Passing(error)) if tried >= self.attempts => {
                    let context = format!("tried {tried} times");
                    return Err(if tried > 1 { error.context(context) } else { error });
                }
                Err(Fault::Passing(_)) => thread::sleep(Duration::from_millis(250 << tried.min(5))),
            }
            tried += 1;
        }
    }
}

fn passing(error: io::Error) -> Fault {
    Fault::Passing(error.into())
}

fn lasting(error: io::Error) -> Fault {
    Fault::Lasting(error.into())
}

fn expect_status(status: u16, good: &[u16]) -> Result<(), Fault> {
    let said = || format!("the server answered with status {status}");
    let error = || anyhow!(said());
    match status {
        status if good.contains(&status) => Ok(()),
        404 | 410 => Err(Fault::Lasting(Other(said()).into())),
        408 | 425 | 429 | 500..=599 => Err(Fault::Passing(error())),
        _ => Err(Fault::Lasting(error())),
    }
}

fn digest_of(file: &mut File) -> Result<Digest> {
    file.seek(SeekFrom::Start(0))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer).context("reading a download back")? {
            0 => return Ok(Digest(hash.finalize().into())),
            read => hash.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod testserver;
