//! Writes a kubeconfig (`kind: Config`, v1): one cluster, one user, one context, as JSON or YAML.
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

/// How a client knows the API server.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// The authority's certificate in the document: PEM.
    Embedded(&'a str),
    /// Path of the authority's certificate.
    File(&'a str),
}

/// How a client proves itself. `Debug` shows no secret.
#[derive(Clone, Copy)]
pub enum Credentials<'a> {
    /// Certificate and key in the document: both PEM.
    Embedded {
        /// The certificate.
        certificate: &'a str,
        /// The key.
        key: &'a str,
    },
    /// Paths of certificate and key, which may be the same file.
    Files {
        /// The certificate's.
        certificate: &'a str,
        /// The key's.
        key: &'a str,
    },
    /// A bearer token, such as a bootstrap token.
    Token(&'a str),
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedded { .. } => "Embedded(…)",
            Self::Files { .. } => "Files",
            Self::Token(_) => "Token(…)",
        })
    }
}

/// A client's way to an API server.
#[derive(Debug, Clone, Copy)]
pub struct Kubeconfig<'a> {
    /// Name of the cluster in the document.
    pub cluster: &'a str,
    /// `https://HOST:PORT`.
    pub server: &'a str,
    /// Name of the user in the document; the context is `USER@CLUSTER`.
    pub user: &'a str,
    /// How the server is known.
    pub trust: Trust<'a>,
    /// How the client proves itself.
    pub credentials: Credentials<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Document<'a> {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'static str,
    clusters: [Cluster<'a>; 1],
    users: [User<'a>; 1],
    contexts: [Context<'a>; 1],
    current_context: String,
}

#[derive(Serialize)]
struct Cluster<'a> {
    name: &'a str,
    cluster: Server<'a>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Server<'a> {
    server: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_authority: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_authority_data: Option<String>,
}

#[derive(Serialize)]
struct User<'a> {
    name: &'a str,
    user: Proof<'a>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Proof<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificate: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificate_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_key_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
}

#[derive(Serialize)]
struct Context<'a> {
    name: String,
    context: Pairing<'a>,
}

#[derive(Serialize)]
struct Pairing<'a> {
    cluster: &'a str,
    user: &'a str,
}

impl Kubeconfig<'_> {
    fn document(&self) -> Document<'_> {
        let data = |text: &str| Some(STANDARD.encode(text));
        let context = format!("{}@{}", self.user, self.cluster);
        let mut server = Server { server: self.server, ..Server::default() };
        match self.trust {
            Trust::Embedded(pem) => server.certificate_authority_data = data(pem),
            Trust::File(path) => server.certificate_authority = Some(path),
        }
        let proof = match self.credentials {
            Credentials::Embedded { certificate, key } => {
                Proof { client_certificate_data: data(certificate), client_key_data: data(key), ..Proof::default() }
            }
            Credentials::Files { certificate, key } => {
                Proof { client_certificate: Some(certificate), client_key: Some(key), ..Proof::default() }
            }
            Credentials::Token(token) => Proof { token: Some(token), ..Proof::default() },
        };
        Document {
            api_version: "v1",
            kind: "Config",
            clusters: [Cluster { name: self.cluster, cluster: server }],
            users: [User { name: self.user, user: proof }],
            contexts: [Context { name: context.clone(), context: Pairing { cluster: self.cluster, user: self.user } }],
            current_context: context,
        }
    }

    /// As a JSON value.
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::to_value(self.document()).expect("texts alone can be written as JSON")
    }

    /// As YAML.
    pub fn to_yaml(&self) -> String {
        // Certificates in one line, as kubectl writes them, not as folded blocks.
        let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
        serde_saphyr::to_string_with_options(&self.document(), options).expect("texts alone can be written as YAML")
    }
}
