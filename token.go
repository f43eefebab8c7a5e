package keywright

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// TokenSource provides the token for each attempt of a call. Token is called
// once per attempt, by many goroutines; it should answer from memory.
type TokenSource interface {
	Token(ctx context.Context) (Secret, error)
}

// Reloader is a [TokenSource] that is asked again when the provider refuses a
// token with 401. Reload returns another token than rejected if it can get
// one, waiting for a bounded time if that helps; returning rejected itself
// ends the call with the 401. A call asks at most once.
type Reloader interface {
	TokenSource
	Reload(ctx context.Context, rejected Secret) (Secret, error)
}

// StaticToken returns a source of one unchanging token.
func StaticToken(token Secret) TokenSource { return &staticToken{token, checkToken(token)} }

type staticToken struct {
	token Secret
	err   error // what is wrong with it, found once
}

func (s *staticToken) Token(context.Context) (Secret, error) { return s.token, s.err }

// checkToken returns an error for a secret that cannot be a token.
func checkToken(s Secret) error {
	if s.IsZero() {
		return ErrNoToken
	}
	if reason := tokenProblem(s.Reveal()); reason != "" {
		return &ParamError{Op: "client", Field: "token", Reason: reason, Err: ErrInvalidToken}
	}
	return nil
}

// EnvToken returns a source that reads the environment variable name on every
// use. A variable that is unset is [ErrNoToken]; one that is set to nothing,
// or to what cannot be a token, is a [*ConfigError] that names it.
func EnvToken(name string) Reloader { return envToken(name) }

type envToken string

func (e envToken) Token(context.Context) (Secret, error) {
	v, ok := os.LookupEnv(string(e))
	if !ok {
		return Secret{}, &ConfigError{Source: string(e), Reason: "is not set", Err: ErrNoToken}
	}
	return configToken(string(e), 0, v)
}

func (e envToken) Reload(ctx context.Context, _ Secret) (Secret, error) { return e.Token(ctx) }

// configToken checks a token that came from a setting.
func configToken(source string, line int, v string) (Secret, error) {
	if reason := tokenProblem(v); reason != "" {
		return Secret{}, &ConfigError{Source: source, Line: line, Reason: "token " + reason, Err: ErrInvalidToken}
	}
	return NewSecret(v), nil
}

// Timing of the sources that change.
const (
	fileCheckEvery = time.Second           // how often a token file is looked at
	reloadWait     = 2 * time.Second       // how long a reload waits for a new token
	reloadPoll     = 20 * time.Millisecond // how often it looks meanwhile
	maxTokenFile   = 64 << 10
)

// FileToken returns a source that reads the token from a file, without a
// goroutine and without a watcher. On use, at most once a second, it looks
// whether the file has changed; a file that is empty, partial, or cannot be
// read leaves the last good token in use. Surrounding white space is ignored.
// The file may be replaced by rename, rewritten in place, or switched through
// symbolic links as Kubernetes does.
//
// On a 401 it reads the file at once. If the file still holds the refused
// token, and that was never accepted, it answers with the token from before (a
// provider may lag behind the file); if it was, it waits up to two seconds for
// the file to change (the file may lag behind the provider).
func FileToken(path string) Reloader { return &fileToken{path: path, sem: make(chan struct{}, 1)} }

type fileToken struct {
	path  string
	state atomic.Pointer[fileState]
	sem   chan struct{} // held while the file is read or waited for
}

// tokenPair is a token and the one before it.
type tokenPair struct {
	current  Secret
	previous Secret // zero until the first change
	proven   bool   // the provider has accepted current
	waited   Secret // the token that a reload waited for in vain
}

// set makes next the current token.
func (p *tokenPair) set(next Secret) {
	if !next.Equal(p.current) {
		p.previous, p.current, p.proven = p.current, next, false
	}
}

// witness is a source that wants to know which token was accepted, so that a
// later 401 is understood as its end and not as the provider's lag.
type witness interface{ accepted(Secret) }

// fileState is what the last look at the file found.
type fileState struct {
	tokenPair
	info   fs.FileInfo
	looked time.Time
}

func (f *fileToken) Token(ctx context.Context) (Secret, error) {
	st := f.state.Load()
	if st != nil {
		age := time.Since(st.looked)
		if age >= 0 && age < fileCheckEvery {
			return st.current, nil
		}
		select {
		case f.sem <- struct{}{}:
		default: // somebody else is looking; the last good token will do
			return st.current, nil
		}
	} else {
		select {
		case f.sem <- struct{}{}:
		case <-ctx.Done():
			return Secret{}, ctx.Err()
		}
	}
	defer func() { <-f.sem }()
	st, err := f.look()
	if err != nil {
		return Secret{}, err
	}
	return st.current, nil
}

// look reads the file if it may have changed and stores what it found. It
// fails only while there is no good token at all. The caller holds sem.
func (f *fileToken) look() (*fileState, error) {
	now := time.Now()
	old := f.state.Load()
	next := &fileState{looked: now}
	if old != nil {
		*next = *old
		next.looked = now
	}
	info, err := os.Stat(f.path)
	switch {
	case err != nil:
		err = fileError(f.path, err)
	case !info.Mode().IsRegular(): // reading a pipe could take for ever
		err = &ConfigError{Source: f.path, Reason: "is not a regular file"}
	case old != nil && unchanged(old.info, info, old.looked):
		f.state.Store(next)
		return next, nil
	default:
		var token Secret
		if token, err = readTokenFile(f.path); err == nil {
			next.info = info
			next.set(token)
		}
	}
	if next.current.IsZero() {
		return nil, err
	}
	f.state.Store(next)
	return next, nil
}

// unchanged reports whether a file is certain to hold what it held. A change
// within the file system's clock tick cannot be seen, so a file that was
// modified shortly before it was read is never certain.
func unchanged(old, now fs.FileInfo, read time.Time) bool {
	return old != nil && os.SameFile(old, now) && old.Size() == now.Size() &&
		old.ModTime().Equal(now.ModTime()) && read.Sub(now.ModTime()) > fileCheckEvery
}

func readTokenFile(path string) (Secret, error) {
	file, err := os.Open(path)
	if err != nil {
		return Secret{}, fileError(path, err)
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxTokenFile+1))
	if err != nil {
		return Secret{}, fileError(path, err)
	}
	if len(b) > maxTokenFile {
		return Secret{}, &ConfigError{Source: path, Reason: "is larger than 64 KiB"}
	}
	return configToken(path, 0, strings.TrimSpace(string(b)))
}

// Reload implements [Reloader]; calls that come at the same time share one
// look at the file.
func (f *fileToken) Reload(ctx context.Context, rejected Secret) (Secret, error) {
	select {
	case f.sem <- struct{}{}:
	case <-ctx.Done():
		return Secret{}, ctx.Err()
	}
	defer func() { <-f.sem }()
	return reload(ctx, rejected, func() (tokenPair, error) {
		if old := f.state.Load(); old != nil {
			forced := *old
			forced.info = nil // read it, whatever its times say
			f.state.Store(&forced)
		}
		st, err := f.look()
		if err != nil {
			return tokenPair{}, err
		}
		return st.tokenPair, nil
	}, func() {
		st := *f.state.Load()
		st.waited = rejected
		f.state.Store(&st)
	})
}

func (f *fileToken) accepted(token Secret) {
	old := f.state.Load()
	if old == nil || old.proven || !token.Equal(old.current) {
		return
	}
	next := *old
	next.proven = true
	f.state.CompareAndSwap(old, &next) // if it fails, the next success tells again
}

// reload is the policy of a source that holds a token and the one before it:
// the current one if it differs from the rejected; the one before, while the
// current one has never been accepted; else whatever becomes current within
// reloadWait. A token that was waited for in vain is not waited for again.
func reload(ctx context.Context, rejected Secret, look func() (tokenPair, error), inVain func()) (Secret, error) {
	deadline := time.Now().Add(reloadWait)
	for {
		p, err := look()
		switch {
		case err != nil:
			return Secret{}, err
		case !p.current.Equal(rejected):
			return p.current, nil
		case !p.proven && !p.previous.IsZero():
			return p.previous, nil
		case p.waited.Equal(rejected):
			return rejected, nil
		case !time.Now().Before(deadline):
			inVain()
			return rejected, nil
		}
		if err := sleep(ctx, reloadPoll); err != nil {
			return Secret{}, err
		}
	}
}

// sleep waits for d or for the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// RotatingToken is a [TokenSource] that holds a token and the one before it,
// for a program that rotates the key it authenticates with. Calls that carry
// the token before survive the overlap, and a 401 on one of the two is
// answered with the other. Its zero value holds no token.
type RotatingToken struct {
	mu   sync.Mutex
	pair tokenPair
	err  error // what is wrong with the current token, found once
}

// NewRotatingToken returns a source that starts with first.
func NewRotatingToken(first Secret) *RotatingToken {
	return &RotatingToken{pair: tokenPair{current: first}, err: checkToken(first)}
}

// Token returns the current token.
func (r *RotatingToken) Token(context.Context) (Secret, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pair.current.IsZero() {
		return Secret{}, ErrNoToken
	}
	return r.pair.current, r.err
}

// Swap makes next the current token, and returns the one it replaces, which
// is kept beside it until the next Swap. It changes nothing, and returns an
// absent Secret, if next is absent or is the current token already.
func (r *RotatingToken) Swap(next Secret) (previous Secret) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if next.IsZero() || next.Equal(r.pair.current) {
		return Secret{}
	}
	r.pair.set(next)
	r.err = checkToken(next)
	return r.pair.previous
}

// Reload implements [Reloader]. On a token that was never accepted it answers
// with the one before it; else it waits up to two seconds for a
// [RotatingToken.Swap].
func (r *RotatingToken) Reload(ctx context.Context, rejected Secret) (Secret, error) {
	return reload(ctx, rejected, func() (tokenPair, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.pair, nil
	}, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.pair.waited = rejected
	})
}

func (r *RotatingToken) accepted(token Secret) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.pair.proven && token.Equal(r.pair.current) {
		r.pair.proven = true
	}
}

// tokenProblem names what keeps s from being a token that can be sent; it is
// "" for one that can. It never repeats any of s.
func tokenProblem(s string) string {
	switch {
	case s == "":
		return "is empty"
	case strings.HasPrefix(s, "\ufeff"):
		return "starts with a byte order mark"
	case strings.HasPrefix(s, "\xff\xfe"), strings.HasPrefix(s, "\xfe\xff"):
		return "is UTF-16; save the file as UTF-8"
	case strings.Contains(s, "\ufffd") && utf8.ValidString(s):
		return "contains U+FFFD: the value was damaged by a text conversion"
	case len(s) > maxSecret:
		return "is longer than 4 KiB"
	}
	if trimmed := strings.TrimRight(s, "\r\n"); len(trimmed) < len(s) {
		return "ends with a newline (" + plural(len(s)-len(trimmed), "trailing byte") + ")"
	}
	if s[0] == ' ' {
		return "starts with a space"
	}
	for _, scheme := range [...]string{"Bearer", "Token", "Basic"} {
		if len(s) > len(scheme) && strings.EqualFold(s[:len(scheme)], scheme) && s[len(scheme)] == ' ' {
			return `includes the scheme "` + scheme + `"; pass only the token`
		}
	}
	switch {
	case strings.HasPrefix(s, "${"), strings.HasPrefix(s, "{{"):
		return "is an unexpanded variable"
	case strings.HasPrefix(s, "$("):
		return "is an unexpanded command"
	case isMask(s):
		return "is a redaction mark or a masked value, not a token"
	case isPlaceholder(s):
		return "is a placeholder"
	}
	for i := range len(s) {
		at := " at byte " + itoa(i)
		switch c := s[i]; {
		case c == ' ':
			return "contains a space" + at
		case c < 0x20 || c == 0x7f:
			return "contains control byte 0x" + hexByte(c) + at
		case c > 0x7e:
			return "contains a non-ASCII byte" + at
		}
	}
	return ""
}

// isMask reports whether s is what a program shows in place of a secret.
func isMask(s string) bool {
	plain := true // most tokens have nothing that a mask is made of
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 0x80, c == '*', c == '.', c == '[', c == '<', c == '(':
			plain = false
		}
	}
	if plain {
		return strings.EqualFold(s, "redacted")
	}
	upper := strings.ToUpper(s)
	switch upper {
	case "<REDACTED>", "(REDACTED)", "***", "[FILTERED]", "[MASKED]":
		return true
	}
	return strings.Contains(s, "…") || strings.Contains(s, "****") || strings.Contains(s, "••") ||
		strings.HasSuffix(s, "...") || strings.Contains(upper, "[REDACTED")
}

// isPlaceholder reports whether s is what a manual shows for a token.
func isPlaceholder(s string) bool {
	if len(s) > 2 && s[0] == '<' && s[len(s)-1] == '>' {
		return true
	}
	switch strings.NewReplacer("-", "", "_", "", " ", "").Replace(strings.ToLower(s)) {
	case "yourtoken", "yourtokenhere", "yourapikey", "yourkey", "token", "changeme", "todo", "secret":
		return true
	}
	return false
}

// fileError is a file that cannot be read, told without repeating the text of
// the system's error.
func fileError(path string, err error) *ConfigError {
	e := &ConfigError{Source: path, Reason: "cannot be read", Err: err}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Reason, e.Err = "file does not exist", fs.ErrNotExist
	case errors.Is(err, fs.ErrPermission):
		e.Reason, e.Err = "permission denied", fs.ErrPermission
	}
	return e
}
