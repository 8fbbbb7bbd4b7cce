//! The layers and their options.

use alloc::sync::Arc;
use core::ops::RangeInclusive;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, response};
use keytally::{Patience, Verdict};
use tower_layer::Layer;

use crate::charge::{Sent, Settle};
use crate::error::ConfigError;
use crate::exempt::ExemptPaths;
use crate::key::KeySources;
use crate::rule::{Client, Cost, GateRule, Kind, Rule};
use crate::service::Guard;
use crate::table::{Extras, SharedGate, SharedLimiter};

/// A layer that requires a valid API key with quota left, and charges the key.
///
/// A request that is admitted proceeds, and its extensions have the [`Caller`](crate::Caller) and
/// the [`Verdict`]. A request that is refused gets 401, 403, 429 or 503. Both responses have the
/// header fields of the verdict.
///
/// The key comes from `X-API-Key`, or from the fields that [`key_from`](Self::key_from) names. It
/// is never read from the query.
#[derive(Clone, Debug)]
pub struct GateLayer {
    rule: Arc<Rule>,
}

/// A layer that requires quota left for the request's subject, and charges the subject.
///
/// The subject is the address of the peer, or what [`subject`](Self::subject) returns. The address
/// comes from the request's extensions: `ConnectInfo<SocketAddr>` of axum, a
/// [`SocketAddr`](core::net::SocketAddr) or an [`IpAddr`](core::net::IpAddr). Without one of these,
/// the response is 500. Behind a proxy, the peer is the proxy, so the application must compute the
/// subject.
///
/// An [`AddressLimiter`](keytally::AddressLimiter) counts the address in the networks of its
/// policy's prefixes. Then [`ipv6_prefix`](Self::ipv6_prefix) has no effect, and a subject that is
/// not the text of an address gets 500.
///
/// The verdict is not in the extensions: [`on_verdict`](Self::on_verdict) gets it.
#[derive(Clone, Debug)]
pub struct LimiterLayer {
    rule: Arc<Rule>,
}

impl GateLayer {
    /// Returns a layer that charges each request 1.
    pub fn new(gate: impl Into<SharedGate>) -> Self {
        let (gate, keys) = (gate.into(), KeySources::default());
        Self {
            rule: Rule::new(Kind::Gate(GateRule {
                gate,
                keys,
                failures: None,
                without_key: None,
                extras: Extras::default(),
            })),
        }
    }

    /// Sets the fields that may carry the key: names of headers, and `Authorization: Bearer` for
    /// the credentials of that scheme.
    ///
    /// A request with two keys that differ gets 401, as does one with two fields of one name. If
    /// the list is not `X-API-Key` alone, `WWW-Authenticate` names these fields, and the text of a
    /// missing key is `Missing API key`.
    ///
    /// ```
    /// # use keytally::{Gate, GateConfig, pepper};
    /// # let gate = Gate::in_memory(pepper::parse(&pepper::generate()?)?, &GateConfig::default())?;
    /// use keytally_tower::GateLayer;
    /// let layer = GateLayer::new(gate).key_from(["X-API-Key", "Authorization: Bearer"])?;
    /// assert!(layer.key_from(["Cookie"]).is_err());
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// If a name is not that of a header, is `Authorization` or `Cookie`, or is repeated. If the
    /// list is empty.
    pub fn key_from<T: AsRef<str>>(
        self,
        names: impl IntoIterator<Item = T>,
    ) -> Result<Self, ConfigError> {
        let parsed = KeySources::parse(names)?;
        Ok(self.with_gate(|gate| gate.keys = parsed))
    }

    /// Limits the invalid keys of each client. A request with an invalid key beyond the limit gets
    /// 429 instead of 401.
    ///
    /// The limiter counts the client's address, or what [`subject`](Self::subject) returns. It
    /// never refuses a valid key, and a request without a key does not count. A client whose
    /// address is unknown is not counted. In shadow mode, nothing is counted.
    #[must_use]
    pub fn failures(self, limiter: impl Into<SharedLimiter>) -> Self {
        let limiter = limiter.into();
        self.with_gate(|gate| gate.failures = Some(limiter))
    }

    /// Charges each request to a group of the gate's plans, too, at the cost of the request.
    ///
    /// ```
    /// # use keytally::{Gate, GateConfig, Plan, pepper};
    /// # let text = "1000/hour; group write: 20/minute".parse()?;
    /// # let config = GateConfig::default().with_plans(vec![Plan::new("default", text).unwrap()]);
    /// # let gate = Gate::in_memory(pepper::parse(&pepper::generate()?)?, &config)?;
    /// use keytally_tower::GateLayer;
    /// let layer = GateLayer::new(gate).group("write")?;
    /// assert!(layer.group("writes").is_err());
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// If the plans of the gate have no group of this name.
    pub fn group(self, name: &str) -> Result<Self, ConfigError> {
        self.with_extras(|extras| extras.with_group(name, None))
    }

    /// Charges each request to a group of the gate's plans, at a cost of its own.
    ///
    /// # Errors
    /// If the plans of the gate have no group of this name.
    pub fn group_cost(self, name: &str, cost: u32) -> Result<Self, ConfigError> {
        self.with_extras(|extras| extras.with_group(name, Some(cost)))
    }

    /// Requires that the key has a scope. A request with another valid key gets 403.
    ///
    /// # Errors
    /// If the gate has no scope of this name.
    pub fn need(self, scope: &str) -> Result<Self, ConfigError> {
        self.with_extras(|extras| extras.with_scope(scope))
    }

    fn with_extras(self, change: impl FnOnce(Extras) -> Extras) -> Result<Self, ConfigError> {
        let mut wrong = None;
        let layer = self.with_gate(|rule| {
            rule.extras = change(core::mem::take(&mut rule.extras));
            wrong = rule.extras.part(&rule.gate.load(), None, 0, Patience::Return).err();
        });
        match wrong {
            None => Ok(layer),
            Some(error) => Err(ConfigError::from_request(&error)),
        }
    }

    /// Admits requests without a key, and charges a limiter for them: the limit is by key, else by
    /// address.
    ///
    /// The limiter counts the client's address, or what [`subject`](Self::subject) returns. If that
    /// is unknown or `None`, the request gets 401. A request with an invalid key gets 401, too.
    #[must_use]
    pub fn without_key(self, limiter: impl Into<SharedLimiter>) -> Self {
        let limiter = limiter.into();
        self.with_gate(|gate| gate.without_key = Some(limiter))
    }

    fn with_gate(self, change: impl FnOnce(&mut GateRule)) -> Self {
        self.with(|rule| {
            if let Kind::Gate(gate) = &mut rule.kind {
                change(gate);
            }
        })
    }
}

impl LimiterLayer {
    /// Returns a layer that charges each request 1.
    ///
    /// ```
    /// use keytally::AddressLimiter;
    /// use keytally_tower::LimiterLayer;
    /// let policy = "addresses: /64 20/minute; /56 160/minute; /48 1000/minute".parse()?;
    /// let layer = LimiterLayer::new(AddressLimiter::in_memory(&policy, 100_000)?);
    /// # let _ = layer;
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn new(limiter: impl Into<SharedLimiter>) -> Self {
        Self { rule: Rule::new(Kind::Limiter(limiter.into())) }
    }
}

/// Implements the options that both layers have.
macro_rules! options {
    ($layer:ident) => {
        impl $layer {
            fn with(mut self, change: impl FnOnce(&mut Rule)) -> Self {
                change(Arc::make_mut(&mut self.rule));
                self
            }

            fn settled(self, settle: Settle) -> Self {
                self.with(|rule| Arc::make_mut(&mut rule.adjustment).settle = settle)
            }

            /// Sets the cost of each request. A cost of 0 checks the request and charges nothing.
            #[must_use]
            pub fn cost(self, cost: u32) -> Self {
                self.with(|rule| rule.cost = Cost::Constant(cost))
            }

            /// Sets the function that computes the cost of a request.
            #[must_use]
            pub fn cost_with(self, cost: impl Fn(&Parts) -> u32 + Send + Sync + 'static) -> Self {
                self.with(|rule| rule.cost = Cost::Function(Arc::new(cost)))
            }

            /// Sets the function that returns the subject by which limiters count a request. A
            /// request for which it returns `None` is not counted.
            #[must_use]
            pub fn subject<T: Into<Vec<u8>>>(
                self,
                subject: impl Fn(&Parts) -> Option<T> + Send + Sync + 'static,
            ) -> Self {
                let subject = Arc::new(move |request: &Parts| subject(request).map(Into::into));
                self.with(|rule| rule.client = Client::Function(subject))
            }

            /// Makes limiters count the address of the peer, and sets the prefix length of the IPv6
            /// networks that count as one client. The default is 64.
            ///
            /// # Errors
            /// If the length is not 1 to 128.
            pub fn ipv6_prefix(self, len: u8) -> Result<Self, ConfigError> {
                if !(1..=128).contains(&len) {
                    let problem = "is not the length of an IPv6 prefix, which is 1 to 128";
                    return Err(ConfigError::new(&len.to_string(), problem));
                }
                Ok(self.with(|rule| rule.client = Client::Peer(len)))
            }

            /// Sets the paths whose requests are not checked: paths such as `/health`, and prefixes
            /// such as `/static/*`.
            ///
            /// The path is compared as it is in the request, percent-encoded, as axum and tonic
            /// route it. A path with a dot segment is never exempt.
            ///
            /// # Errors
            /// If a path does not begin with a slash, has `*` before its end, or can never match.
            pub fn exempt<T: AsRef<str>>(
                self,
                paths: impl IntoIterator<Item = T>,
            ) -> Result<Self, ConfigError> {
                let paths = ExemptPaths::parse(paths)?;
                Ok(self.with(|rule| rule.exempt_paths = paths))
            }

            /// Sets the methods whose requests are not checked, such as `OPTIONS` for the
            /// preflights of browsers.
            #[must_use]
            pub fn exempt_methods(self, methods: impl IntoIterator<Item = Method>) -> Self {
                let methods = methods.into_iter().collect();
                self.with(|rule| rule.exempt_methods = methods)
            }

            /// Refunds the charge if the response has a status in this range, such as `500..=599`.
            /// Several calls add ranges.
            ///
            /// An error of the inner service counts as the status 500, as does an error in the
            /// middle of a body. If the response's future or body is dropped, that changes nothing:
            /// otherwise a client could close the connection to get the charge back. A refund takes
            /// precedence over [`settle`](Self::settle) and
            /// [`settle_at_head`](Self::settle_at_head).
            ///
            /// # Errors
            /// If the range is empty, or not within 100 to 999.
            pub fn refund(mut self, statuses: RangeInclusive<u16>) -> Result<Self, ConfigError> {
                let rule = Arc::make_mut(&mut self.rule);
                Arc::make_mut(&mut rule.adjustment).add_refund(statuses)?;
                Ok(self)
            }

            /// Sets the function that returns the actual cost of a request after its response. The
            /// charge is an estimate until then.
            ///
            /// It is called once for each admitted request whose charge was not refunded: when the
            /// body ends or returns an error, when the inner service returns an error, and when the
            /// response's future or body is dropped because the client closed the connection. It is
            /// not called while the thread panics.
            ///
            /// If the actual cost is higher, the rest is charged as far as there is room. The
            /// header fields of the response show the estimate. The function gets a copy of the
            /// request's head, as it was before the inner service.
            ///
            /// ```
            /// # use keytally::{Gate, GateConfig, Limiter, pepper};
            /// # let limiter = Limiter::in_memory(&"300/minute".parse()?, 100)?;
            /// use keytally_tower::LimiterLayer;
            /// let layer = LimiterLayer::new(limiter).cost(10).settle(|_, sent| {
            ///     if sent.is_complete { 1 + (sent.bytes / 1000) as u32 } else { sent.cost }
            /// });
            /// # let _ = layer;
            /// # Ok::<(), Box<dyn core::error::Error>>(())
            /// ```
            #[must_use]
            pub fn settle(
                self,
                actual: impl Fn(&Parts, &Sent<'_>) -> u32 + Send + Sync + 'static,
            ) -> Self {
                self.settled(Settle::AtEnd(Arc::new(actual)))
            }

            /// Sets the function that returns the actual cost of a request once the head of its
            /// response is known. It replaces that of [`settle`](Self::settle).
            ///
            /// The header fields of the response include the actual cost. If the inner service
            /// returns an error, or if the response's future is dropped, the function is not called
            /// and the estimate stays.
            #[must_use]
            pub fn settle_at_head(
                self,
                actual: impl Fn(&Parts, &response::Parts) -> u32 + Send + Sync + 'static,
            ) -> Self {
                self.settled(Settle::AtHead(Arc::new(actual)))
            }

            /// Sets shadow mode: every request is admitted, and the response's field
            /// `X-Keytally-Shadow` names the outcome that would have refused it.
            #[must_use]
            pub fn shadow(self, shadow: bool) -> Self {
                self.with(|rule| rule.shadow = shadow)
            }

            /// Sets whether the responses list the quotas of the table. A refusal lists them in any
            /// case. The default is true.
            #[must_use]
            pub fn headers(self, listed: bool) -> Self {
                self.with(|rule| rule.listed = listed)
            }

            /// Sets the function that is called with each verdict and the head of its request, for
            /// logs and metrics.
            #[must_use]
            pub fn on_verdict(
                self,
                on_verdict: impl Fn(&Verdict, &Parts) + Send + Sync + 'static,
            ) -> Self {
                self.with(|rule| rule.on_verdict = Some(Arc::new(on_verdict)))
            }

            /// Sets the function that returns the response to a refused request, from the verdict
            /// that refuses it and the head of the request.
            ///
            /// The layer sets `Content-Length` and the rate-limit fields. It adds `Retry-After`,
            /// `WWW-Authenticate` and `Content-Type` if the response does not have them. Without
            /// this function, and for gRPC, the layer sends the documented responses.
            #[must_use]
            pub fn refusal(
                self,
                refusal: impl Fn(&Verdict, &Parts) -> Response<Bytes> + Send + Sync + 'static,
            ) -> Self {
                self.with(|rule| rule.refusal = Some(Arc::new(refusal)))
            }
        }

        impl<S> Layer<S> for $layer {
            type Service = Guard<S>;

            fn layer(&self, inner: S) -> Self::Service {
                Guard::new(inner, Arc::clone(&self.rule))
            }
        }
    };
}

options!(GateLayer);
options!(LimiterLayer);
