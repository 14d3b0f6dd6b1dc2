//! From a name to its addresses.
//!
//! Names are looked up by a resolver of our own, not by that of the C library: it would occupy a thread for each look-up
//! that nobody answers, and keep no answer for as long as it holds.

use std::fmt;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::read_system_conf;
use tokio::time::Instant;
use tracing::warn;

/// How many answers are kept, each for as long as it says (TTL).
const CACHED_ANSWERS: u64 = 4096;
/// How long it is remembered that there is no answer: a name that has just been set up should work soon.
const NEGATIVE_TTL: Duration = Duration::from_secs(5);
/// How often it is looked whether the system's configuration is another one, at most.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// The files that the configuration is in (resolv.conf(5), hosts(5)).
const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// A look-up under way.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, Unresolved>> + Send + 'a>>;

/// Looks names up.
pub trait Resolve: fmt::Debug + Send + Sync {
    /// The addresses of a name, in any order. It is dropped when nobody waits for it any more.
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a>;
}

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unresolved(
    /// In words for an operator.
    pub String,
);

/// What the system's files say, asked over DNS: `/etc/hosts` and `/etc/resolv.conf`, search domains included.
#[derive(Default)]
pub(crate) struct System {
    current: Mutex<Option<Current>>,
}

struct Current {
    resolver: Arc<TokioResolver>,
    /// What the files were when they were read.
    files: Files,
    looked: Instant,
}

/// When each of the files was changed last; none, if it cannot be told.
type Files = [Option<SystemTime>; FILES.len()];

impl System {
    /// The resolver for what the files say by now.
    fn resolver(&self) -> Result<Arc<TokioResolver>, Unresolved> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some(current) = current.as_mut().filter(|current| now < current.looked + LOOK_AGAIN) {
            return Ok(current.resolver.clone());
        }
        let files = FILES.map(|file| Path::new(file).metadata().and_then(|file| file.modified()).ok());
        if let Some(current) = current.as_mut().filter(|current| current.files == files) {
            current.looked = now;
            return Ok(current.resolver.clone());
        }
        let resolver = Arc::new(build().map_err(|error| Unresolved(error.to_string()))?);
        *current = Some(Current { resolver: resolver.clone(), files, looked: now });
        Ok(resolver)
    }
}

impl Resolve for System {
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            let found = self.resolver()?.lookup_ip(name).await;
            found.map(|found| found.iter().collect()).map_err(|error| Unresolved(in_words(&error)))
        })
    }
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("System")
    }
}

fn build() -> Result<TokioResolver, NetError> {
    let (config, mut options) = read_system_conf().unwrap_or_else(|error| {
        warn!(%error, "/etc/resolv.conf cannot be used; names are asked for at 127.0.0.1");
        let here = NameServerConfig::udp_and_tcp(IpAddr::V4(Ipv4Addr::LOCALHOST));
        (ResolverConfig::from_name_servers(vec![here]), ResolverOpts::default())
    });
    options.cache_size = CACHED_ANSWERS;
    options.negative_max_ttl = Some(NEGATIVE_TTL);
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build()
}

fn in_words(error: &NetError) -> String {
    if error.is_nx_domain() {
        "there is no such name".to_owned()
    } else if error.is_no_records_found() {
        "it has no address".to_owned()
    } else {
        error.to_string()
    }
}
