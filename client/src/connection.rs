//! Connections: made when first needed, watched over by pings, and shared without one stream starving another.
//!
//! HTTP/2 gives all streams of a connection one receive window. A log stream that nobody reads would use it up and hold
//! back every other stream beside it; so log streams have connections of their own, and there the connection's window is
//! as large as HTTP/2 allows, which leaves the window of each stream as the only limit. A connection is given at most
//! [`STREAMS_PER_CONNECTION`] requests at a time, since a server that takes no more lets the next one wait in silence.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::settings::Address;
use crate::{ClientCertificate, Error, Settings};

/// The least that RFC 9113 (section 6.5.2) recommends a server to allow.
const STREAMS_PER_CONNECTION: usize = 100;

/// A dead peer is noticed within half a minute; load balancers of the usual kinds close idle connections after a minute.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What an unread log stream may hold in memory. A chunk is 64 KiB, so a reader that keeps up never waits for it.
const STREAM_WINDOW: u32 = 1 << 20;

/// The largest window of HTTP/2 (RFC 9113, section 6.9.1): two thousand unread streams do not use it up.
const LOG_CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// For the connection of calls and states: their messages are small.
const CALL_CONNECTION_WINDOW: u32 = 16 << 20;

/// Room for error details with many fields, in trailers.
const MAX_HEADER_LIST: u32 = 64 << 10;

const PEM_MARK: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// Makes a channel from the settings of an endpoint.
pub(crate) type Dial = Arc<dyn Fn(&Endpoint) -> Channel + Send + Sync>;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Calls, and streams of states.
    Calls,
    /// Streams with lines.
    Logs,
}

/// All connections of one client.
pub(crate) struct Connections {
    calls: Pool,
    logs: Pool,
}

impl Connections {
    pub(crate) fn new(settings: &Settings, address: &Address, dial: &Dial) -> Result<Self, Error> {
        let endpoint = endpoint(settings, address)?;
        let calls = endpoint.clone().initial_connection_window_size(CALL_CONNECTION_WINDOW);
        let logs = endpoint.initial_connection_window_size(LOG_CONNECTION_WINDOW);
        Ok(Self { calls: Pool::new(calls, Arc::clone(dial)), logs: Pool::new(logs, Arc::clone(dial)) })
    }

    /// A connection for one request. Must be called within a Tokio runtime.
    pub(crate) fn lease(&self, lane: Lane) -> Lease {
        match lane {
            Lane::Calls => self.calls.lease(),
            Lane::Logs => self.logs.lease(),
        }
    }
}

/// The right to have one request under way. Keep it as long as the answer is read.
pub(crate) struct Lease {
    pub(crate) channel: Channel,
    _place: Arc<()>,
}

struct Pool {
    endpoint: Endpoint,
    dial: Dial,
    slots: Mutex<Vec<Slot>>,
}

struct Slot {
    channel: Channel,
    /// One more reference than leases.
    places: Arc<()>,
}

impl Slot {
    fn leases(&self) -> usize {
        Arc::strong_count(&self.places) - 1
    }
}

impl Pool {
    fn new(endpoint: Endpoint, dial: Dial) -> Self {
        Self { endpoint, dial, slots: Mutex::new(Vec::new()) }
    }

    fn lease(&self) -> Lease {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let mut first = true;
        // Those that a rush of streams needed are closed when they are idle; the first one stays.
        slots.retain(|slot| std::mem::take(&mut first) || slot.leases() > 0);
        let free = slots.iter().position(|slot| slot.leases() < STREAMS_PER_CONNECTION).unwrap_or_else(|| {
            slots.push(Slot { channel: (self.dial)(&self.endpoint), places: Arc::new(()) });
            slots.len() - 1
        });
        let slot = &slots[free];
        Lease { channel: slot.channel.clone(), _place: Arc::clone(&slot.places) }
    }
}

fn endpoint(settings: &Settings, address: &Address) -> Result<Endpoint, Error> {
    let invalid = |cause: tonic::transport::Error| {
        let cause = std::error::Error::source(&cause).map_or_else(|| cause.to_string(), ToString::to_string);
        Error::settings(format!("the connection to {}: {cause}", settings.endpoint))
    };
    let endpoint = match address {
        Address::Plain(uri) => plain(settings, Endpoint::from(uri.clone()))?,
        Address::Unix(path) => plain(settings, Endpoint::from_shared(format!("unix:{path}")).map_err(invalid)?)?,
        Address::Tls(uri) => Endpoint::from(uri.clone()).tls_config(tls(settings)?).map_err(invalid)?,
    };
    endpoint
        .user_agent(concat!("podbroker-client/", env!("CARGO_PKG_VERSION")))
        .map(|endpoint| {
            endpoint
                .connect_timeout(settings.connect_timeout)
                .tcp_keepalive(Some(PING_INTERVAL))
                .http2_keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_TIMEOUT)
                .keep_alive_while_idle(true)
                .initial_stream_window_size(STREAM_WINDOW)
                .http2_max_header_list_size(MAX_HEADER_LIST)
        })
        .map_err(invalid)
}

/// Settings that have no effect without TLS are a misunderstanding that could cost somebody their safety.
fn plain(settings: &Settings, endpoint: Endpoint) -> Result<Endpoint, Error> {
    if settings.ca_file.is_some() || settings.client_certificate.is_some() || settings.server_name.is_some() {
        return Err(Error::settings(format!(
            "a CA file, a client certificate and a server name need https, and the address is {}",
            settings.endpoint
        )));
    }
    Ok(endpoint)
}

fn tls(settings: &Settings) -> Result<ClientTlsConfig, Error> {
    let mut tls = match &settings.ca_file {
        Some(path) => {
            let pem = read(path)?;
            // Without this, a file of another kind would be taken for an empty list, and no certificate would do.
            if !pem.windows(PEM_MARK.len()).any(|window| window == PEM_MARK) {
                return Err(Error::settings(format!("{}: holds no PEM certificate", path.display())));
            }
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
        }
        None => ClientTlsConfig::new().with_native_roots(),
    };
    if let Some(ClientCertificate { certificate_file, key_file }) = &settings.client_certificate {
        tls = tls.identity(Identity::from_pem(read(certificate_file)?, read(key_file)?));
    }
    if let Some(name) = &settings.server_name {
        tls = tls.domain_name(name);
    }
    Ok(tls.timeout(settings.connect_timeout))
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|cause| Error::settings(format!("{}: {cause}", path.display())))
}
