package sink

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/internal/loopback"
)

// Limits of a request to a service.
const (
	restTimeout      = 15 * time.Second
	maxAnswer        = 2 << 20 // a Secret of Kubernetes may be 1 MiB, and is sent as base64
	maxAnswerHeaders = 64 << 10
	maxPeerText      = 200 // bytes of a service's words in an error
)

// rest is what the sinks behind an HTTP API share: one origin, a token that is
// read for each request, no redirects, bounded answers.
type rest struct {
	name    string // of the sink
	base    string // the address, without a slash at its end
	needs   string // what a 403 says is missing
	client  *http.Client
	source  keywright.TokenSource
	headers func(h http.Header, token string)
}

// newRest checks what all of these sinks are configured with. op names the
// sink's constructor in errors.
func newRest(op, address string, source keywright.TokenSource, hc *http.Client) (*rest, error) {
	base, reason := baseAddress(address)
	if reason != "" {
		return nil, &keywright.ParamError{Op: op, Field: "Address", Reason: reason, Err: keywright.ErrInvalidURL}
	}
	if source == nil {
		return nil, &keywright.ParamError{Op: op, Field: "Token", Reason: "is missing", Err: keywright.ErrNoToken}
	}
	client := &http.Client{Transport: ownTransport(nil)}
	if hc != nil {
		*client = *hc
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &rest{base: base, client: client, source: source}, nil
}

// ownTransport keeps no connection: deliveries are rare, and on a connection
// of its own a request is never lost to one that the server had given up.
// roots are the CAs to trust, nil for the system's.
func ownTransport(roots *x509.CertPool) http.RoundTripper {
	t := new(http.Transport)
	if base, ok := http.DefaultTransport.(*http.Transport); ok {
		t = base.Clone()
	} else if roots == nil { // somebody wrapped it, and wants to see every request
		return http.DefaultTransport
	}
	if roots != nil {
		t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	t.DisableKeepAlives = true
	t.MaxResponseHeaderBytes = maxAnswerHeaders
	return t
}

// baseAddress checks the address of a service. reason repeats nothing of raw,
// which may hold a password.
func baseAddress(raw string) (base, reason string) {
	u, err := url.Parse(raw)
	switch {
	case raw == "":
		return "", "is missing"
	case err != nil:
		return "", "cannot be parsed"
	case u.Scheme != "https" && u.Scheme != "http":
		return "", `must start with "https://"`
	case u.User != nil || strings.Contains(raw, "@"):
		return "", "must not contain user info (value not shown)"
	case u.Hostname() == "" || strings.HasSuffix(u.Host, ":"):
		return "", "host or port is missing"
	case u.Scheme == "http" && !loopback.Is(u.Hostname()):
		return "", `scheme "http" is not allowed; use https (plain http only to a loopback host)`
	case strings.Contains(raw, "?"):
		return "", "must not contain a query"
	case strings.Contains(raw, "#"):
		return "", "must not contain a fragment"
	case strings.ContainsAny(raw, "%\\"):
		return "", `must not contain "%" or "\"`
	}
	u.Path = strings.TrimRight(u.Path, "/")
	if u.Path != "" {
		if reason := pathProblem(strings.TrimPrefix(u.Path, "/")); reason != "" {
			return "", "path " + reason
		}
	}
	return u.Scheme + "://" + strings.ToLower(u.Host) + u.EscapedPath(), ""
}

// pathProblem names what keeps segments, joined by slashes, from being sent as
// they are: a server or a proxy would resolve them to another path.
func pathProblem(path string) string {
	for segment := range strings.SplitSeq(path, "/") {
		if reason := segmentProblem(segment); reason != "" {
			return reason
		}
	}
	return ""
}

func segmentProblem(segment string) string {
	switch {
	case segment == "":
		return "is empty or has an empty segment"
	case segment == "." || segment == "..":
		return `must not contain "." or ".." as a segment`
	case strings.ContainsFunc(segment, unicode.IsControl) || !utf8.ValidString(segment):
		return "contains a control character or is not UTF-8"
	}
	return ""
}

// escapePath escapes each segment of a path.
func escapePath(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	return strings.Join(segments, "/")
}

// param is a setting that becomes a part of a request's path.
type param struct {
	field, value string
	path         bool // it may have several segments
}

// checkParams returns an error for the first that cannot be sent.
func checkParams(op string, params ...param) error {
	for _, p := range params {
		reason := pathProblem(p.value)
		if !p.path && strings.Contains(p.value, "/") {
			reason = `must not contain "/"`
		}
		if reason != "" {
			return &keywright.ParamError{Op: op, Field: p.field, Reason: reason}
		}
	}
	return nil
}

// exchange is one operation of a sink: its requests, and the secrets that its
// errors must not show.
type exchange struct {
	*rest
	op     string
	hidden []string
}

func (r *rest) begin(op string, secrets ...keywright.Secret) *exchange {
	x := &exchange{rest: r, op: op}
	x.hide(secrets...)
	return x
}

// minHidden is the length from which a value is taken for a secret.
const minHidden = 4

func (x *exchange) hide(secrets ...keywright.Secret) {
	for _, s := range secrets {
		v := s.Reveal()
		if len(v) < minHidden {
			continue
		}
		quoted := strconv.Quote(v)
		x.hidden = append(x.hidden, v, quoted[1:len(quoted)-1],
			base64.RawStdEncoding.EncodeToString([]byte(v)), base64.RawURLEncoding.EncodeToString([]byte(v)),
			url.PathEscape(v), url.QueryEscape(v))
	}
}

// clean makes a service's words fit for an error: one line, quoted, at most
// maxPeerText bytes of it, without any secret in play.
func (x *exchange) clean(s string) string {
	// A secret that is a part of another must not uncover the rest of it.
	slices.SortFunc(x.hidden, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	for _, h := range x.hidden {
		s = strings.ReplaceAll(s, h, "[REDACTED]")
	}
	s = strings.Join(strings.Fields(maskTokens(s)), " ")
	if len(s) > maxPeerText {
		end := maxPeerText
		for end > 0 && !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end]
	}
	return strconv.QuoteToASCII(s)
}

// maskTokens masks every long run of token characters that mixes letters with
// digits: it may be a secret that this package has not seen.
func maskTokens(s string) string {
	const long = 20
	var b strings.Builder
	for len(s) > 0 {
		end := strings.IndexFunc(s, func(r rune) bool { return !isTokenRune(r) })
		if end < 0 {
			end = len(s)
		}
		run := s[:end]
		if len(run) >= long && strings.ContainsAny(run, "0123456789") && strings.ContainsFunc(run, unicode.IsLetter) {
			run = "[REDACTED]"
		}
		b.WriteString(run)
		s = s[end:]
		_, size := utf8.DecodeRuneInString(s)
		b.WriteString(s[:size])
		s = s[size:]
	}
	return b.String()
}

func isTokenRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-+=~", r)
}

func (x *exchange) fail(class error, reason string) error {
	return &Error{Sink: x.name, Op: x.op, Reason: reason, Err: class}
}

// answer is what a service answered, complete.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// message returns the reason that a service gives: "errors" of Vault,
// "message" of Kubernetes and GitHub.
func (a *answer) message() string {
	var said struct {
		Message string `json:"message"`
		Errors  []any  `json:"errors"`
	}
	_ = json.Unmarshal(a.body, &said) // what fits is read; the rest says nothing
	parts := []string{said.Message}
	for _, e := range said.Errors {
		if s, ok := e.(string); ok {
			parts = append(parts, s)
		}
	}
	return strings.TrimSpace(strings.Join(parts, " "))
}

// refuse is an answer that makes no sense to send the request again for.
func (x *exchange) refuse(a *answer, reason string) error {
	return x.fail(ErrRefused, x.saying(a, reason))
}

// saying adds to reason the status and the service's own words.
func (x *exchange) saying(a *answer, reason string) string {
	reason += " (" + strconv.Itoa(a.status)
	if m := a.message(); m != "" {
		reason += ": " + x.clean(m)
	}
	return reason + ")"
}

// decode reads an answer's body.
func (x *exchange) decode(a *answer, v any) error {
	if err := json.Unmarshal(a.body, v); err != nil {
		return x.fail(ErrTemporary, "answer ("+strconv.Itoa(a.status)+") is not the JSON that it should be")
	}
	return nil
}

// request is what is sent, but for address and authentication.
type request struct {
	method      string
	path        string // escaped, with a slash at its start
	contentType string
	body        []byte
}

// send makes a request and returns an answer that is neither a redirect, a
// failure that may pass, nor a refused authentication. If the service does not
// accept the token, the source is asked for another, once.
func (x *exchange) send(ctx context.Context, r request) (*answer, error) {
	token, err := x.source.Token(ctx)
	if err != nil {
		return nil, x.sourceError(ctx, err)
	}
	a, err := x.sendAs(ctx, token, r)
	if err != nil {
		return nil, err
	}
	// Vault says 403 to a token that has expired, and the request was not acted on.
	unaccepted := a.status == http.StatusUnauthorized || a.status == http.StatusForbidden
	if source, ok := x.source.(keywright.Reloader); ok && unaccepted && !a.busy() {
		next, err := source.Reload(ctx, token)
		if err != nil {
			return nil, x.sourceError(ctx, err)
		}
		if !next.Equal(token) {
			if a, err = x.sendAs(ctx, next, r); err != nil {
				return nil, err
			}
		}
	}
	switch {
	case a.busy():
		return nil, x.fail(ErrTemporary, x.saying(a, "service is not available"+a.wait(time.Now())))
	case a.status >= 300 && a.status < 400:
		return nil, x.refuse(a, "answered with a redirect, which is not followed; mend the address")
	case a.status == http.StatusUnauthorized:
		return nil, x.refuse(a, "the authentication token is not accepted")
	case a.status == http.StatusForbidden:
		return nil, x.refuse(a, "the authentication token has expired or lacks a permission; it needs "+x.needs)
	}
	return a, nil
}

// sendAs makes one request with token.
func (x *exchange) sendAs(ctx context.Context, token keywright.Secret, r request) (*answer, error) {
	x.hide(token)
	bounded, cancel := context.WithTimeout(ctx, restTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(bounded, r.method, x.base+r.path, bytes.NewReader(r.body))
	if err != nil {
		return nil, x.fail(ErrRefused, "the request cannot be made")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "keywright")
	if r.contentType != "" {
		req.Header.Set("Content-Type", r.contentType)
	}
	x.headers(req.Header, token.Reveal())
	resp, err := x.client.Do(req)
	if err != nil {
		return nil, x.transportError(ctx, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, x.transportError(ctx, err)
	}
	if len(body) > maxAnswer {
		return nil, x.fail(ErrRefused, "answer ("+strconv.Itoa(resp.StatusCode)+") is larger than 2 MiB")
	}
	return &answer{status: resp.StatusCode, header: resp.Header, body: body}, nil
}

// busy reports whether the same request may be answered better later. A 403
// can be a limit in disguise: GitHub marks its limits by headers, or by
// nothing but the message.
func (a *answer) busy() bool {
	switch {
	case a.status == http.StatusTooManyRequests || a.status >= 500:
		return true
	case a.status != http.StatusForbidden:
		return false
	}
	return a.header.Get("X-Ratelimit-Remaining") == "0" || a.header.Get("Retry-After") != "" ||
		strings.Contains(strings.ToLower(a.message()), "secondary rate limit")
}

// wait says how long the service asked to wait, if it did.
func (a *answer) wait(now time.Time) string {
	var d time.Duration
	if after := a.header.Get("Retry-After"); after != "" {
		if seconds, err := strconv.Atoi(after); err == nil {
			d = time.Duration(min(seconds, maxWaitSeconds)) * time.Second
		} else if at, err := http.ParseTime(after); err == nil {
			d = at.Sub(now)
		}
	} else if a.header.Get("X-Ratelimit-Remaining") == "0" {
		if at, err := strconv.ParseInt(a.header.Get("X-Ratelimit-Reset"), 10, 64); err == nil {
			d = time.Unix(at, 0).Sub(now)
		}
	}
	if d <= 0 {
		return ""
	}
	return ", and asks to wait " + d.Round(time.Second).String()
}

const maxWaitSeconds = 30 * 24 * 60 * 60 // more is a mistake

// sourceError is a token source that gave no token. Its text is repeated only
// if it comes from this module, whose errors hold no secret.
func (x *exchange) sourceError(ctx context.Context, err error) error {
	var config *keywright.ConfigError
	switch {
	case ctx.Err() != nil:
		return x.fail(ctx.Err(), ctx.Err().Error())
	case errors.As(err, &config):
		return x.fail(ErrRefused, "no authentication token: "+config.Error())
	case errors.Is(err, keywright.ErrNoToken), errors.Is(err, keywright.ErrInvalidToken):
		return x.fail(ErrRefused, "no usable authentication token")
	}
	return x.fail(ErrTemporary, "the source of the authentication token failed")
}

// transportError retells why there is no complete answer. What the standard
// library says may repeat the peer's bytes, a URL or a proxy's password.
func (x *exchange) transportError(ctx context.Context, err error) error {
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var dns *net.DNSError
	var timeout net.Error
	var errno syscall.Errno
	switch {
	case ctx.Err() != nil:
		return x.fail(ctx.Err(), ctx.Err().Error())
	case errors.As(err, &cert):
		return x.fail(ErrRefused, "TLS certificate is not trusted")
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return x.fail(ErrRefused, "server does not speak TLS")
	case errors.As(err, &dns):
		return x.fail(ErrTemporary, "host name could not be resolved")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &timeout) && timeout.Timeout():
		return x.fail(ErrTemporary, "timed out")
	case errors.As(err, &errno):
		return x.fail(ErrTemporary, errno.Error())
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return x.fail(ErrTemporary, "connection closed before the answer was complete")
	}
	return x.fail(ErrTemporary, "no usable answer")
}

// unchanged returns an error that matches [ErrConflict] unless the sink is as
// the caller knows it.
func (x *exchange) unchanged(now, previous Reading) error {
	switch {
	case now.Version != previous.Version:
		return x.fail(ErrConflict, "is "+state(now.Version)+" now, "+state(previous.Version)+" was expected")
	case !now.Token.Equal(previous.Token):
		return x.fail(ErrConflict, "holds another token than was expected")
	}
	return nil
}

func state(version string) string {
	if version == "" {
		return "absent"
	}
	return "at version " + strconv.QuoteToASCII(version)
}

// holds returns nil if the sink was found to hold token.
func (x *exchange) holds(now Reading, token keywright.Secret) error {
	switch {
	case !token.IsZero() && now.Token.Equal(token):
		return nil
	case now.Token.IsZero():
		return x.fail(ErrConflict, "holds no token")
	}
	return x.fail(ErrConflict, "holds another token")
}
