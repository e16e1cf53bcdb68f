//! Turns an https URL into the text that it names, for PID 1, which speaks no TLS itself.
use std::error::Error;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use kube::Client;
use kube::client::Body;

use crate::connection;
use crate::say;

/// Certificates of the public authorities in the image.
pub const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The most that an answer may hold: as much as any other source of metadata.
const LARGEST: usize = 1 << 20;

/// For one attempt altogether.
const PATIENCE: Duration = Duration::from_secs(20);

/// A switch may take this many attempts until it forwards on a new link.
const ATTEMPTS: u32 = 4;

/// What an attempt was good for.
enum Got {
    Text(Vec<u8>),
    /// The server has spoken: asking again brings the same.
    Refused(String),
    /// It is worth another attempt.
    Nothing(String),
}

/// Fetches the text. Redirections are told, not followed: who sends the machine elsewhere should be asked there.
///
/// # Errors
/// `url` is no https URL, its server does not prove itself by one of the `authorities`, or does not answer with a text of at most a megabyte.
pub async fn text(url: &str, authorities: &Path) -> Result<Vec<u8>> {
    let uri: Uri = url.parse().with_context(|| format!("reading the URL {url:?}"))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let server = format!("https://{}", uri.authority().map_or("", |authority| authority.as_str()));
    if uri.scheme_str() != Some("https") {
        bail!("{url} is not a URL of the form https://HOST[:PORT]/PATH");
    }
    let client = connection::without_identity(&server, authorities)?;
    let mut last = String::new();
    for attempt in 0..ATTEMPTS {
        tokio::time::sleep(Duration::from_secs(1) * attempt).await;
        match tokio::time::timeout(PATIENCE, get(&client, path)).await {
            Ok(Ok(Got::Text(text))) => return Ok(text),
            Ok(Ok(Got::Refused(why))) => bail!("fetching {url}: {why}"),
            Ok(Ok(Got::Nothing(why))) => last = why,
            Ok(Err(error)) => last = say::words(reason(&error)),
            Err(_) => last = format!("there is no answer within {} s", PATIENCE.as_secs()),
        }
    }
    bail!("fetching {url} ({ATTEMPTS} attempts): {last}")
}

/// The library's own words for this are of an API server.
fn reason(error: &anyhow::Error) -> &(dyn Error + 'static) {
    match error.downcast_ref() {
        Some(kube::Error::Service(inner)) => &**inner,
        _ => error.as_ref(),
    }
}

async fn get(client: &Client, path: &str) -> Result<Got> {
    let request = Request::get(path).header("Accept", "*/*").body(Body::empty()).context("making a request")?;
    let answer = client.send(request).await?;
    match answer.status() {
        StatusCode::OK => {}
        status if status.is_server_error() => return Ok(Got::Nothing(format!("the server answers {status}"))),
        status => {
            let to = answer.headers().get(http::header::LOCATION).and_then(|to| to.to_str().ok());
            let to = to.map_or(String::new(), |to| format!(", and names {to}"));
            return Ok(Got::Refused(format!("the server answers {status}{to}")));
        }
    }
    match Limited::new(answer.into_body(), LARGEST).collect().await {
        Ok(body) => Ok(Got::Text(body.to_bytes().into())),
        Err(error) => Ok(Got::Nothing(format!("reading the answer: {error}"))),
    }
}
