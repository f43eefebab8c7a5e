package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keywright/keywright"
)

// Header is the name of the header that carries the signature.
const Header = "Ricloud-Signature"

// Classes of errors, for errors.Is.
var (
	// ErrNoSignature: the header is missing or empty.
	ErrNoSignature = errors.New("webhook: no signature")
	// ErrMalformedSignature: the header is there, and is not what ricloud
	// sends.
	ErrMalformedSignature = errors.New("webhook: malformed signature")
	// ErrSignatureMismatch: no secret matches.
	ErrSignatureMismatch = errors.New("webhook: no secret matches the signature")
	// ErrTimestamp: the signature is good, and too old or too new.
	ErrTimestamp = errors.New("webhook: timestamp out of tolerance")
	// ErrDuplicate: the event was accepted before.
	ErrDuplicate = errors.New("webhook: event was accepted before")
	// ErrConflict: an event of this id, with another content, was accepted
	// before.
	ErrConflict = errors.New("webhook: event id was seen with other content")
	// ErrInvalidEvent: the signature is good, and the body is no event.
	ErrInvalidEvent = errors.New("webhook: invalid event")
	// ErrInvalidSecret: a secret that must not be used.
	ErrInvalidSecret = errors.New("webhook: invalid secret")
	// ErrBusy: not now; the provider shall deliver again. An accept function
	// may return it.
	ErrBusy = errors.New("webhook: busy")
)

// Limits.
const (
	defaultTolerance = 5 * time.Minute
	maxTolerance     = time.Hour
	maxSecrets       = 4
	minSecret        = 16
)

var (
	// earliest is a time before which no system's clock can be right.
	earliest = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	// ancient is a time before which nobody can have signed anything.
	ancient = time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC)
)

// A Verifier tells deliveries of ricloud from everything else. Make one with
// [NewVerifier]; it is safe for concurrent use.
type Verifier struct {
	signers   atomic.Pointer[[]*signer]
	tolerance time.Duration
	now       func() time.Time
	vouched   bool // the caller's clock, who knows what it shows
}

// Option configures a [Verifier].
type Option func(*Verifier) error

// WithTolerance sets how far a delivery's timestamp may be from now, in either
// direction: above zero, at most an hour. The default is five minutes. ricloud
// signs each attempt anew.
func WithTolerance(d time.Duration) Option {
	return func(v *Verifier) error {
		switch {
		case d <= 0:
			return &keywright.ParamError{Op: "webhook", Field: "tolerance", Reason: "must be greater than 0; there is no way to turn the check off"}
		case d > maxTolerance:
			return &keywright.ParamError{Op: "webhook", Field: "tolerance", Reason: "must be at most " + maxTolerance.String() + ", got " + d.String()}
		}
		v.tolerance = d
		return nil
	}
}

// WithClock sets where the time comes from; the default is time.Now.
func WithClock(now func() time.Time) Option {
	return func(v *Verifier) error {
		if now == nil {
			return &keywright.ParamError{Op: "webhook", Field: "clock", Reason: "must not be nil"}
		}
		v.now, v.vouched = now, true
		return nil
	}
}

// NewVerifier returns a verifier for one to four secrets of at least 16 bytes
// each: those of the webhook configs that may deliver. Errors match
// [ErrInvalidSecret], or are a [*keywright.ParamError], or, if the system's
// clock cannot be right, a [*keywright.ConfigError].
func NewVerifier(secrets []keywright.Secret, opts ...Option) (*Verifier, error) {
	v := &Verifier{tolerance: defaultTolerance, now: time.Now}
	for _, opt := range opts {
		if err := opt(v); err != nil {
			return nil, err
		}
	}
	if err := v.SetSecrets(secrets...); err != nil {
		return nil, err
	}
	return v, v.checkClock()
}

// SetSecrets exchanges the secrets, for deliveries that begin from now on. On an
// error nothing changes.
func (v *Verifier) SetSecrets(secrets ...keywright.Secret) error {
	switch n := len(secrets); {
	case n == 0:
		return fmt.Errorf("%w: at least one webhook secret is required", ErrInvalidSecret)
	case n > maxSecrets:
		return fmt.Errorf("%w: %d webhook secrets given; the maximum is %d", ErrInvalidSecret, n, maxSecrets)
	}
	for i, s := range secrets {
		if reason := secretProblem(s.Reveal()); reason != "" {
			return fmt.Errorf("%w: webhook secret %d %s", ErrInvalidSecret, i+1, reason)
		}
	}
	signers := make([]*signer, len(secrets))
	for i, s := range secrets {
		signers[i] = &signer{secret: s}
	}
	v.signers.Store(&signers)
	return nil
}

// secretProblem names what is wrong with a secret, without showing it.
func secretProblem(s string) string {
	switch trimmed := strings.TrimSpace(s); {
	case s == "":
		return "is empty"
	case trimmed == "":
		return "is blank"
	case len(s) < minSecret:
		return fmt.Sprintf("is %d bytes long; the minimum is %d", len(s), minSecret)
	case strings.HasSuffix(s, "\n"), strings.HasSuffix(s, "\r"):
		return "ends with a newline"
	case isPlaceholder(trimmed):
		return "is a placeholder"
	}
	return ""
}

// isPlaceholder reports whether s is one word of a manual, once or repeated,
// or a mask.
func isPlaceholder(s string) bool {
	plain := strings.NewReplacer("-", "", "_", "", " ", "").Replace(strings.ToLower(s))
	for _, word := range [...]string{"changeme", "secret", "yoursecret", "yourwebhooksecret", "webhooksecret", "placeholder", "example", "password", "x", "*", "•"} {
		if strings.ReplaceAll(plain, word, "") == "" {
			return true
		}
	}
	return strings.Contains(s, "[REDACTED]") || strings.Contains(s, "****") || strings.Contains(s, "…") || strings.HasPrefix(s, "${")
}

func (v *Verifier) checkClock() error {
	if !v.vouched && v.now().Before(earliest) {
		return &keywright.ConfigError{Source: "clock", Reason: "system clock is before 2020; webhook times cannot be checked"}
	}
	return nil
}

// Verify returns the event in a delivery, if ricloud has signed it, for one of
// the secrets, within the tolerance. body must be the bytes as they arrived. It
// checks the header's shape, the signature, the time and the body, in this
// order; the error tells which one failed, and holds nothing of the delivery.
func (v *Verifier) Verify(header http.Header, body []byte) (*Event, error) {
	sig, err := parseSignature(header)
	if err != nil {
		return nil, err
	}
	return v.verify(sig, body)
}

func (v *Verifier) verify(sig signature, body []byte) (*Event, error) {
	if v == nil || v.signers.Load() == nil {
		return nil, fmt.Errorf("%w: the verifier has none", ErrInvalidSecret)
	}
	if err := v.checkClock(); err != nil {
		return nil, err
	}
	if !sig.by(*v.signers.Load(), body) {
		return nil, ErrSignatureMismatch
	}
	if err := v.checkTime(sig.seconds); err != nil {
		return nil, err
	}
	return parseEvent(body)
}

func (v *Verifier) checkTime(seconds int64) error {
	age := v.now().Unix() - seconds
	limit := int64(v.tolerance / time.Second)
	switch {
	case age < -limit && seconds > 1e11:
		return fmt.Errorf("%w: timestamp is not in seconds", ErrTimestamp)
	case age < -limit:
		return fmt.Errorf("%w: timestamp is %ds in the future; the tolerance is %ds; check the clock", ErrTimestamp, -age, limit)
	case age > limit && seconds < ancient.Unix():
		return fmt.Errorf("%w: timestamp is too old; the tolerance is %ds", ErrTimestamp, limit)
	case age > limit:
		return fmt.Errorf("%w: timestamp is %ds old; the tolerance is %ds", ErrTimestamp, age, limit)
	}
	return nil
}

// signature is a header that was taken apart.
type signature struct {
	text    string // of the timestamp, which is signed as it is written
	seconds int64
	mac     [sha256.Size]byte
}

// parseSignature reads the one header of a delivery: "t=<seconds>,s=<base64>".
func parseSignature(header http.Header) (signature, error) {
	values := header[Header]
	switch {
	case len(values) == 0, len(values) == 1 && values[0] == "":
		return signature{}, ErrNoSignature
	case len(values) > 1:
		return signature{}, malformed("given twice")
	}
	return readSignature(values[0])
}

func malformed(reason string) error { return fmt.Errorf("%w: %s", ErrMalformedSignature, reason) }

// Sizes of a signature.
const (
	maxDigits = 13 // milliseconds, which deserve an explanation
	macText   = 44
)

var strict = base64.StdEncoding.Strict()

func readSignature(s string) (signature, error) {
	var sig signature
	t, mac, ok := strings.Cut(s, ",")
	switch {
	case !strings.HasPrefix(s, "t="):
		return sig, malformed(`want "t=" first`)
	case !ok:
		return sig, malformed(`want "t=<seconds>,s=<base64>"`)
	case strings.Contains(mac, ","):
		return sig, malformed("want exactly two fields")
	case !strings.HasPrefix(mac, "s="):
		return sig, malformed(`want "t=" then "s="`)
	}
	sig.text, mac = t[2:], mac[2:]
	switch {
	case sig.text == "":
		return sig, malformed("timestamp: empty")
	case len(sig.text) > maxDigits:
		return sig, malformed("timestamp: too long")
	case strings.ContainsFunc(sig.text, func(r rune) bool { return r < '0' || r > '9' }):
		return sig, malformed("timestamp: digits only")
	case sig.text[0] == '0' && sig.text != "0":
		return sig, malformed("timestamp: leading zero")
	case len(mac) != macText:
		return sig, malformed("signature: want 44 base64 characters, got " + strconv.Itoa(len(mac)))
	}
	if strings.ContainsAny(mac, "\r\n") {
		return sig, malformed("signature: not base64")
	}
	var text [macText]byte
	var mine [macText * 3 / 4]byte
	copy(text[:], mac)
	n, err := strict.Decode(mine[:], text[:])
	if err != nil || n != len(sig.mac) {
		return sig, malformed("signature: not canonical base64")
	}
	copy(sig.mac[:], mine[:n])
	sig.seconds, _ = strconv.ParseInt(sig.text, 10, 64) // at most thirteen digits
	return sig, nil
}

// by reports whether one of the signers has signed body. It tries them all.
func (sig *signature) by(signers []*signer, body []byte) bool {
	found := false
	for _, s := range signers {
		mac := s.sum(sig.text, body)
		found = hmac.Equal(mac[:], sig.mac[:]) || found
	}
	return found
}

// A signer computes signatures with one secret.
type signer struct {
	secret keywright.Secret
	free   sync.Pool // of *keyed
}

// keyed is a hash that is ready for its secret, and room to work in.
type keyed struct {
	hash hash.Hash
	buf  [sha256.Size]byte
}

// sum is the HMAC-SHA256 of a timestamp, a dot and a body.
func (s *signer) sum(seconds string, body []byte) (out [sha256.Size]byte) {
	k, _ := s.free.Get().(*keyed)
	if k == nil {
		k = &keyed{hash: hmac.New(sha256.New, []byte(s.secret.Reveal()))}
	}
	k.hash.Reset()
	k.hash.Write(append(append(k.buf[:0], seconds...), '.'))
	k.hash.Write(body)
	copy(out[:], k.hash.Sum(k.buf[:0]))
	s.free.Put(k)
	return out
}

// Sign returns the header value of a delivery of body at t, for senders and
// tests.
func Sign(secret keywright.Secret, t time.Time, body []byte) string {
	seconds := strconv.FormatInt(t.Unix(), 10)
	mac := (&signer{secret: secret}).sum(seconds, body)
	return "t=" + seconds + ",s=" + base64.StdEncoding.EncodeToString(mac[:])
}
