package keywright

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"github.com/keywright/keywright/internal/wire"
)

// mask is what every formatter prints in place of a secret. A token that
// looks like it is refused, so that a mask which was saved by mistake is
// caught before it is used.
const mask = "[REDACTED]"

// maxSecret bounds a token, password or webhook secret, in bytes.
const maxSecret = 4 << 10

// Secret holds a token, a password, a webhook secret or storage credentials.
//
// It prints as a mask through every verb of fmt, through log/slog, and inside
// any struct, also behind an unexported field and under tools that walk values
// by reflection. Encoding it (JSON, text, binary, gob) is an error: a mask
// saved in place of a token is a lost key. [Secret.Reveal] is the one way out.
//
// The zero Secret is an absent one. Two Secrets are compared with
// [Secret.Equal]; == is true only for copies of one Secret.
type Secret struct{ p *box }

// box hides the value in a closure: fmt calls no methods on what it finds
// behind an unexported field, and no walker opens a function.
type box struct{ reveal func() string }

// ErrSecretEncoding is returned by every attempt to encode a [Secret].
var ErrSecretEncoding = errors.New("keywright: a Secret cannot be encoded; call Reveal and store the text itself")

// NewSecret returns a Secret that holds s. NewSecret("") is the zero Secret.
func NewSecret(s string) Secret {
	if s == "" {
		return Secret{}
	}
	return Secret{&box{func() string { return s }}}
}

// Reveal returns the secret text, or "" for an absent one.
func (s Secret) Reveal() string {
	if s.p == nil {
		return ""
	}
	return s.p.reveal()
}

// IsZero reports whether the secret is absent.
func (s Secret) IsZero() bool { return s.p == nil }

// Equal reports whether two secrets hold the same text, in time that depends
// on their lengths alone.
func (s Secret) Equal(other Secret) bool {
	return s.p == other.p || subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(other.Reveal())) == 1
}

// fingerprintKey is drawn on first use and never leaves the process.
var fingerprintKey struct {
	once sync.Once
	key  [32]byte
}

// Fingerprint returns twelve hexadecimal digits that tell secrets apart within
// this process: a keyed hash whose key is random and kept nowhere, so that a
// logged fingerprint cannot be tried against guesses. It is "" for an absent
// secret.
func (s Secret) Fingerprint() string {
	if s.p == nil {
		return ""
	}
	k := &fingerprintKey
	k.once.Do(func() { _, _ = rand.Read(k.key[:]) }) // crypto/rand.Read never fails
	h := hmac.New(sha256.New, k.key[:])
	io.WriteString(h, s.Reveal())
	return hex.EncodeToString(h.Sum(nil)[:6])
}

// String returns a mask, or "" for an absent secret.
func (s Secret) String() string {
	if s.p == nil {
		return ""
	}
	return mask
}

// GoString returns a mask.
func (s Secret) GoString() string {
	if s.p == nil {
		return "keywright.Secret{}"
	}
	return "keywright.Secret(" + mask + ")"
}

// Format prints a mask for every verb.
func (s Secret) Format(f fmt.State, verb rune) {
	if verb == 'v' && f.Flag('#') {
		io.WriteString(f, s.GoString())
		return
	}
	io.WriteString(f, s.String())
}

// LogValue returns a mask.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalJSON returns [ErrSecretEncoding]; an absent secret is null.
func (s Secret) MarshalJSON() ([]byte, error) {
	if s.p == nil {
		return []byte("null"), nil
	}
	return nil, ErrSecretEncoding
}

// MarshalText returns [ErrSecretEncoding]; an absent secret is empty.
func (s Secret) MarshalText() ([]byte, error) { return s.refuse() }

// MarshalBinary returns [ErrSecretEncoding]; an absent secret is empty.
func (s Secret) MarshalBinary() ([]byte, error) { return s.refuse() }

// GobEncode returns [ErrSecretEncoding]; an absent secret is empty.
func (s Secret) GobEncode() ([]byte, error) { return s.refuse() }

func (s Secret) refuse() ([]byte, error) {
	if s.p == nil {
		return []byte{}, nil
	}
	return nil, ErrSecretEncoding
}

// UnmarshalJSON reads a JSON string. It refuses null, an empty string, broken
// Unicode, control characters and more than 4 KiB, and never echoes its input.
func (s *Secret) UnmarshalJSON(b []byte) error {
	var got Secret
	wrapped := make([]byte, 0, len(b)+6)
	wrapped = append(append(append(wrapped, `{"s":`...), bytes.TrimSpace(b)...), '}')
	o, err := wire.Open(wrapped, wire.Strict)
	if err != nil {
		return errors.New("keywright: secret: not JSON")
	}
	for o.Next() {
		readSecret(o, &got, isPrintable)
	}
	if err := o.Err(); err != nil {
		return errors.New("keywright: secret: want " + err.Want + ", got " + err.Got)
	}
	if got.IsZero() {
		return errors.New("keywright: secret: want a string, got null")
	}
	*s = got
	return nil
}

// readSecret reads the current member of o into dst. Null leaves dst absent;
// everything else that is not a usable secret is an error in any mode.
// problem names what is wrong with a text that arrived intact.
func readSecret(o *wire.Object, dst *Secret, problem func(string) string) {
	if o.Null() {
		return
	}
	if !dst.IsZero() {
		o.Fatal("one value", "two: given twice")
		return
	}
	s, bad := o.ExactString()
	if bad == "" {
		bad = problem(s)
	}
	if bad != "" {
		o.Fatal("a secret", bad)
		return
	}
	*dst = NewSecret(s)
}

// isPrintable names what keeps s from being a password or webhook secret.
func isPrintable(s string) string {
	switch {
	case s == "":
		return "an empty string"
	case len(s) > maxSecret:
		return "more than 4 KiB"
	}
	for _, r := range s {
		switch {
		case r < 0x20 || r == 0x7f:
			return "a control character"
		case r == '\uFFFD':
			return "U+FFFD: the value was damaged by a text conversion"
		}
	}
	return ""
}

// isHeaderSafe names what keeps s from being sent in an Authorization header.
func isHeaderSafe(s string) string {
	if bad := isPrintable(s); bad != "" {
		return bad
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c == ' ':
			return "a space"
		case c > 0x7e:
			return "a character outside of ASCII"
		}
	}
	return ""
}
