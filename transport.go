package keywright

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Limits of an exchange.
const (
	defaultTimeout  = 30 * time.Second
	minSettleTime   = 60 * time.Second
	maxErrorBody    = 1 << 20
	maxResultBody   = 32 << 20
	maxHeaderBytes  = 64 << 10
	idleConnections = 128
)

// transports are where a client sends: reads share connections, and each call
// that changes something has a fresh HTTP/1.1 connection of its own, because
// on a reused one nobody can tell a request that was never read from one that
// was.
type transports struct {
	reads, writes http.RoundTripper
	own           bool // by this package: a failure before the dial is ours to explain
}

// newTransports builds the client's own transports, or wraps the one of hc.
func newTransports(hc *http.Client) (transports, error) {
	if hc != nil {
		var shared http.RoundTripper = globalTransport{}
		if hc.Transport != nil {
			if isNil(hc.Transport) {
				return transports{}, optionError("HTTP client", "transport must not be a nil pointer")
			}
			shared = hc.Transport
		}
		return transports{reads: shared, writes: shared}, nil
	}
	base, ok := http.DefaultTransport.(*http.Transport)
	if !ok { // somebody wrapped it, and wants to see every request
		return transports{reads: globalTransport{}, writes: globalTransport{}}, nil
	}
	if err := checkTransportEnvironment(); err != nil {
		return transports{}, err
	}
	reads := ownTransport(base)
	reads.MaxIdleConns = 0
	reads.MaxIdleConnsPerHost = idleConnections
	writes := ownTransport(base)
	writes.DisableKeepAlives = true
	writes.ForceAttemptHTTP2 = false
	writes.Protocols = new(http.Protocols)
	writes.Protocols.SetHTTP1(true)
	writes.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	if writes.TLSClientConfig != nil {
		writes.TLSClientConfig.NextProtos = nil
	}
	return transports{reads: reads, writes: writes, own: true}, nil
}

func ownTransport(base *http.Transport) *http.Transport {
	t := base.Clone()
	t.MaxResponseHeaderBytes = maxHeaderBytes
	return t
}

func (t transports) closeIdle() {
	for _, rt := range [...]http.RoundTripper{t.reads, t.writes} {
		if c, ok := rt.(interface{ CloseIdleConnections() }); ok {
			c.CloseIdleConnections()
		}
	}
}

// globalTransport is http.DefaultTransport, whatever that is at the time.
type globalTransport struct{}

func (globalTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	return http.DefaultTransport.RoundTrip(r)
}

// checkTransportEnvironment refuses variables that would fail on every call
// with an error that hides why.
func checkTransportEnvironment() error {
	for _, name := range [...]string{"HTTPS_PROXY", "https_proxy"} {
		v := os.Getenv(name)
		if v == "" {
			continue
		}
		u, err := url.Parse(v)
		if err != nil || u.Host == "" {
			u, err = url.Parse("http://" + v)
		}
		if err != nil || u.Host == "" || strings.HasPrefix(u.Host, ":") {
			return &ConfigError{Source: name, Reason: "not a URL; refusing to connect without it"}
		}
	}
	if v := os.Getenv("SSL_CERT_FILE"); v != "" {
		if _, err := os.Stat(v); err != nil {
			return &ConfigError{Source: "SSL_CERT_FILE", Reason: "file does not exist"}
		}
	}
	return nil
}

// originGuard is the innermost layer: whatever a middleware does, a token goes
// nowhere but to the origin it is for.
type originGuard struct {
	next   http.RoundTripper
	scheme string
	host   string
}

var (
	errOtherOrigin = errors.New("request to another origin refused")
	errNoResponse  = errors.New("transport returned neither a response nor an error")
	errBadStatus   = errors.New("answer without a final status")
)

func (g *originGuard) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != g.scheme || r.URL.Host != g.host {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, errOtherOrigin
	}
	return g.next.RoundTrip(r)
}

// evidence is what httptrace saw of an attempt that changes something.
type evidence struct {
	asked  atomic.Bool  // the transport honours httptrace
	got    atomic.Bool  // it had a connection
	writes atomic.Int32 // times the request was written
}

// reset forgets what an attempt before showed.
func (e *evidence) reset() {
	if e != nil {
		e.asked.Store(false)
		e.got.Store(false)
	}
}

// unsent reports whether no byte can have left. traced says that the transport
// is known to honour httptrace.
func (e *evidence) unsent(traced bool) bool {
	return e != nil && !e.got.Load() && (traced || e.asked.Load())
}

func (e *evidence) written() int {
	if e == nil {
		return 0
	}
	return int(e.writes.Load())
}

func (e *evidence) trace(ctx context.Context) context.Context {
	// A new one each time: net/http adds the hooks of ctx to it.
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:      func(string) { e.asked.Store(true) },
		GotConn:      func(httptrace.GotConnInfo) { e.got.Store(true) },
		WroteRequest: func(httptrace.WroteRequestInfo) { e.writes.Add(1) },
	})
}

// permanent reports whether an attempt that got no answer would fail the same
// way again.
func permanent(err error) bool {
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var config *ConfigError
	var param *ParamError
	switch {
	case errors.As(err, &dns):
		return dns.IsNotFound
	case errors.As(err, &cert), errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch),
		errors.Is(err, errOtherOrigin), errors.As(err, &config), errors.As(err, &param),
		errors.Is(err, ErrNoToken), isTooLargeHeader(err):
		return true
	}
	text := err.Error()
	return strings.HasSuffix(text, http.StatusText(http.StatusProxyAuthRequired)) ||
		strings.Contains(text, "unsupported protocol scheme") || strings.Contains(text, "tls: ")
}

func isTooLargeHeader(err error) bool {
	text := err.Error()
	return strings.Contains(text, "server response headers exceeded") ||
		strings.Contains(text, "response header list larger than advertised limit")
}

// notDialed reports whether err says that no connection was made.
func notDialed(err error) bool {
	var op *net.OpError
	var dns *net.DNSError
	return errors.As(err, &dns) || errors.As(err, &op) && op.Op == "dial"
}

// sanitise retells a transport's error. What the standard library says may
// repeat the peer's bytes, a URL or a proxy's password, so that only errors
// of a closed set are passed on.
func sanitise(err error) error {
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var errno syscall.Errno
	var config *ConfigError
	var param *ParamError
	switch {
	case errors.As(err, &config):
		return config
	case errors.As(err, &param):
		return param
	case err == nil:
		return errNoResponse
	case errors.Is(err, errOtherOrigin), errors.Is(err, errNoResponse), errors.Is(err, errBadStatus):
		return err
	case isTooLargeHeader(err):
		return &causeError{"response headers are too large", ErrTooLarge}
	case errors.As(err, &dns):
		if dns.IsNotFound {
			return &causeError{"host not found", &net.DNSError{Err: "no such host", IsNotFound: true}}
		}
		return &causeError{"host name could not be resolved", &net.DNSError{
			Err: "temporary failure", IsTemporary: dns.IsTemporary, IsTimeout: dns.IsTimeout,
		}}
	case errors.As(err, &cert):
		return &causeError{"TLS certificate refused: " + certReason(cert), nil}
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return &causeError{"server does not speak TLS", http.ErrSchemeMismatch}
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), isTimeout(err):
		return &causeError{"timed out", context.DeadlineExceeded}
	case errors.As(err, &errno):
		return &causeError{errno.Error(), errno}
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return &causeError{"connection closed by the server", io.ErrUnexpectedEOF}
	case errors.Is(err, net.ErrClosed):
		return &causeError{"connection closed", net.ErrClosed}
	case strings.HasSuffix(err.Error(), http.StatusText(http.StatusProxyAuthRequired)):
		return errors.New("proxy wants authentication")
	case errors.Is(err, ErrNoToken):
		return ErrNoToken
	}
	if text := err.Error(); strings.Contains(text, "malformed") || strings.Contains(text, "http2") ||
		strings.Contains(text, "stream error") {
		return errors.New("broken HTTP exchange")
	}
	return errors.New("no answer from the server")
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

func certReason(err *tls.CertificateVerificationError) string {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		return "signed by an unknown authority"
	case errors.As(err, &host):
		return "not for this host"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "expired or not yet valid"
	}
	return "not valid"
}

// causeError has a text of our own and a well-known error behind it.
type causeError struct {
	text string
	err  error
}

func (e *causeError) Error() string { return e.text }

func (e *causeError) Unwrap() error { return e.err }
