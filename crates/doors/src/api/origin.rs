//! Which page sent a request, as its browser says. Owns nothing; a page of another site is refused.

use axum::extract::Request;
use hostler_model::{Code, Refusal};
use http::uri::Authority;
use http::{HeaderName, Method, header};

use super::refuse::Failure;

/// What a browser says of the page that sent a request, beside its origin.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Without login, a page of another site that a person has open could order this server about: a browser
/// sends plain posts anywhere. So a write that names an origin must come from this server's own address,
/// and that must not be a name that another site could point here.
///
/// With login, that other site would have to show a token or a cookie, and has neither: any name that the request was
/// sent to is our own.
pub(super) fn keep_pages_out(request: &Request, is_guarded: bool) -> Result<(), Failure> {
    let is_telling = is_telling(request.uri().path());
    if ((is_write(request) || is_socket(request)) && !is_same_origin(request, is_guarded))
        || (is_telling && !is_guarded && is_under_foreign_name(request))
    {
        return Err(Failure(of_another_site()));
    }
    Ok(())
}

/// Why a page of another site is kept out.
pub(super) fn of_another_site() -> Refusal {
    let sentence = "a page of another site may neither change this fleet nor read its streams, files and audit";
    let advice = "use the command line, or a client that sends no `Origin`";
    Refusal::new(Code::Forbidden, sentence, advice)
}

/// Whether a page of our own sent it, as its browser says: nothing said is not enough.
pub(super) fn is_own_page(request: &Request) -> bool {
    let headers = request.headers();
    let site = headers.get(FETCH_SITE);
    let is_said = site.is_some() || headers.contains_key(header::ORIGIN);
    let is_own_site = site.is_none_or(|site| site == "same-origin");
    let origin = headers.get(header::ORIGIN);
    let is_secured = origin.is_none_or(|it| it.as_bytes().starts_with(b"https://"));
    is_said && is_own_site && is_secured && is_same_origin(request, true)
}

pub(super) fn is_write(request: &Request) -> bool {
    !matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    )
}

/// What comes over a socket a browser shows to any page that opened it: no rule of sharing holds there.
pub(super) fn is_socket(request: &Request) -> bool {
    request.headers().contains_key(header::UPGRADE)
}

/// Where files of copies are read and written, and where all that is kept or was done can be had.
fn is_telling(path: &str) -> bool {
    let is_of_copies = path.starts_with("/api/v1/assignments/") && path.ends_with("/files");
    is_of_copies || ["/api/v1/backup", "/api/v1/audit"].contains(&path)
}

/// Whoever owns the name of a page can point it here once the page is open. The page then reads from what its browser
/// takes for its own site, so that no origin is named. But a browser always says which encodings it takes, whatever the
/// page wants; command lines do not, and may know this server by any name.
fn is_under_foreign_name(request: &Request) -> bool {
    let says_encodings = request.headers().contains_key(header::ACCEPT_ENCODING);
    says_encodings && !host_of(request).is_some_and(is_own_name)
}

/// HTTP/2 names the host in what is asked for, HTTP/1.1 in a header.
fn host_of(request: &Request) -> Option<&str> {
    let asked = request.uri().authority().map(Authority::as_str);
    asked.or_else(|| request.headers().get(header::HOST)?.to_str().ok())
}

fn is_same_origin(request: &Request, takes_any_name: bool) -> bool {
    let Some(origin) = request.headers().get(header::ORIGIN) else {
        return true;
    };
    let authority = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"));
    let (Some((_, authority)), Some(host)) = (authority, host_of(request)) else {
        return false;
    };
    authority == host && (takes_any_name || is_own_name(host))
}

/// An address or `localhost`: nobody else can make such a name point here.
fn is_own_name(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&HeaderName, &str)]) -> Request {
        let mut request = Request::new(axum::body::Body::empty());
        for (name, value) in headers {
            let value = value.parse().unwrap();
            request.headers_mut().insert(*name, value);
        }
        request
    }

    fn from(origin: Option<&str>, host: &str) -> Request {
        let mut headers = vec![(&header::HOST, host)];
        headers.extend(origin.map(|origin| (&header::ORIGIN, origin)));
        request(&headers)
    }

    #[test]
    fn only_our_own_address_may_be_the_origin_of_a_write() {
        for (origin, host, expected) in [
            (None, "127.0.0.1:8080", true),
            (Some("http://127.0.0.1:8080"), "127.0.0.1:8080", true),
            (Some("http://localhost:8080"), "localhost:8080", true),
            (Some("http://[::1]:8080"), "[::1]:8080", true),
            (Some("http://evil.example"), "127.0.0.1:8080", false),
            (Some("http://evil.example:8080"), "evil.example:8080", false),
            (Some("null"), "127.0.0.1:8080", false),
        ] {
            assert_eq!(
                is_same_origin(&from(origin, host), false),
                expected,
                "{origin:?} {host}"
            );
        }
        // Where there is login, a name is as good as an address, if both are the same.
        assert!(is_same_origin(
            &from(Some("https://fleet.example"), "fleet.example"),
            true
        ));
        assert!(!is_same_origin(
            &from(Some("https://evil.example"), "fleet.example"),
            true
        ));
    }

    #[test]
    fn our_own_page_is_who_says_so_in_every_way_that_a_browser_has() {
        const ORIGIN: &HeaderName = &header::ORIGIN;
        let own = "https://fleet.example";
        for (said, expected) in [
            (&[][..], false),
            (&[(ORIGIN, own)], true),
            (&[(&FETCH_SITE, "same-origin")], true),
            (&[(ORIGIN, own), (&FETCH_SITE, "same-origin")], true),
            (&[(ORIGIN, own), (&FETCH_SITE, "same-site")], false),
            (&[(ORIGIN, own), (&FETCH_SITE, "none")], false),
            (&[(&FETCH_SITE, "cross-site")], false),
            (&[(ORIGIN, "http://fleet.example")], false),
            (&[(ORIGIN, "https://fleet.example:8443")], false),
            (&[(ORIGIN, "https://evil.example")], false),
            (&[(ORIGIN, "null")], false),
        ] {
            let mut request = request(said);
            // As HTTP/2 says it: without a header.
            *request.uri_mut() = "https://fleet.example/login".parse().unwrap();
            assert_eq!(is_own_page(&request), expected, "{said:?}");
        }
    }

    #[test]
    fn no_page_reads_files_or_the_audit_under_a_name_that_others_could_point_here() {
        let files = "/api/v1/assignments/x/files?path=/etc";
        let audit = "/api/v1/audit?limit=1000";
        for (path, host, encodings, expected) in [
            (files, "evil.example:8080", Some("gzip"), false),
            (files, "evil.example:8080", None, true),
            (files, "127.0.0.1:8080", Some("gzip"), true),
            (files, "localhost:8080", Some("gzip"), true),
            ("/api/v1/backup", "evil.example:8080", Some("gzip"), false),
            (audit, "evil.example:8080", Some("gzip"), false),
            (audit, "localhost:8080", Some("gzip"), true),
            ("/api/v1/nodes", "evil.example:8080", Some("gzip"), true),
        ] {
            let mut request = from(None, host);
            *request.uri_mut() = path.parse().unwrap();
            if let Some(encodings) = encodings {
                let encodings = encodings.parse().unwrap();
                request
                    .headers_mut()
                    .insert(header::ACCEPT_ENCODING, encodings);
            }
            assert!(keep_pages_out(&request, true).is_ok());
            let passes = keep_pages_out(&request, false).is_ok();
            assert_eq!(passes, expected, "{path} {host} {encodings:?}");
        }
    }
}
