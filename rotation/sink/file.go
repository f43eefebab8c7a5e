package sink

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/internal/durable"
)

// FileOption configures a sink that is a file or a part of one.
type FileOption interface{ applyFile(*fileSink) }

// ExecOption configures an [Exec] sink.
type ExecOption interface{ applyExec(*execSink) }

// LagOption is a [FileOption] and an [ExecOption].
type LagOption interface {
	FileOption
	ExecOption
}

// WithLag says that the last reader has a new token so long after it was
// written, without a restart.
func WithLag(d time.Duration) LagOption { return lagOption(d) }

type lagOption time.Duration

func (d lagOption) applyFile(s *fileSink) { d.apply(&s.traits) }
func (d lagOption) applyExec(s *execSink) { d.apply(&s.traits) }

func (d lagOption) apply(t *Traits) {
	t.Lag, t.UntilRestart = max(time.Duration(d), 0), false
}

type fileOption func(*fileSink)

func (o fileOption) applyFile(s *fileSink) { o(s) }

// WithMode sets the mode of the file; without it the mode is 0600, whatever it
// was before.
func WithMode(mode fs.FileMode) FileOption {
	return fileOption(func(s *fileSink) { s.mode = mode })
}

// WithFollowLink allows the path to be a symbolic link, and replaces the file
// that it points to. Without it a link is refused.
func WithFollowLink() FileOption {
	return fileOption(func(s *fileSink) { s.followLink = true })
}

// Bounds of files, in bytes.
const (
	maxTokenFile  = 64 << 10
	maxConfigFile = 1 << 20
)

// File returns a sink that is a file with the token and a newline in it. White
// space around the token is ignored; a file that holds anything else than one
// token is refused. A file that is absent or empty holds no token.
//
// Like all sinks that are files, it takes the lock ".NAME.lock" beside the
// file NAME, and replaces the file by one that is complete and on the disk. A
// directory that everybody may write to is refused, as is a file that belongs
// to somebody else than us or root.
//
// [keywright.FileToken] looks at its file once a second, hence the lag of one
// second; see [WithLag].
func File(path string, opts ...FileOption) Sink {
	s := newFileSink("file "+path, path, maxTokenFile, plainFormat{}, nil)
	s.traits.Lag, s.traits.UntilRestart = time.Second, false
	return s.with(opts)
}

// format is where in a file a token is. Its errors are a [problem].
type format interface {
	// get returns the token, or "" if there is none.
	get(content []byte) (string, error)
	// set returns content with token in it.
	set(content []byte, token string) ([]byte, error)
}

// problem is what is wrong with a content or a setting, told without repeating
// any of it.
type problem string

// Error returns the text.
func (p problem) Error() string { return string(p) }

// atLine is a problem with one line.
func atLine(line int, what string) problem {
	return problem("line " + strconv.Itoa(line) + ": " + what)
}

// fileSink is a file, or the part of one that format finds.
type fileSink struct {
	name, path string
	limit      int
	format     format
	invalid    error // a setting that cannot be used
	mode       fs.FileMode
	followLink bool
	traits     Traits
}

// newFileSink returns a sink whose readers read it when they start.
func newFileSink(name, path string, limit int, f format, invalid error) *fileSink {
	if path == "" {
		invalid = problem("the path is empty")
	}
	return &fileSink{name: name, path: path, limit: limit, format: f, invalid: invalid, traits: Traits{
		UntilRestart: true,
		Readable:     true,
		Grade:        GradeReadBack,
		Guarantee:    "The file on the disk holds the token, and does after a crash or a power cut.",
	}}
}

func (s *fileSink) with(opts []FileOption) *fileSink {
	for _, o := range opts {
		o.applyFile(s)
	}
	return s
}

func (s *fileSink) Name() string { return s.name }

func (s *fileSink) Traits() Traits { return s.traits }

func (s *fileSink) Read(ctx context.Context) (Reading, error) {
	const op = "read"
	fsys := durable.FromContext(ctx)
	path, err := s.target(ctx, fsys)
	if err != nil {
		return Reading{}, s.fail(op, err)
	}
	_, token, err := s.read(fsys, path)
	if err != nil {
		return Reading{}, s.fail(op, err)
	}
	return Reading{Token: keywright.NewSecret(token)}, nil
}

func (s *fileSink) CompareAndWrite(ctx context.Context, previous Reading, token keywright.Secret) error {
	const op = "write"
	if p := writable(token); p != "" {
		return s.fail(op, p)
	}
	fsys := durable.FromContext(ctx)
	path, err := s.target(ctx, fsys)
	if err != nil {
		return s.fail(op, err)
	}
	unlock, err := fsys.Lock(ctx, lockName(path), true)
	if err != nil {
		return s.fail(op, err)
	}
	err = s.replace(ctx, fsys, path, previous.Token, token)
	// What was written is written, whether the lock can be given up or not.
	_ = unlock()
	return s.fail(op, err)
}

// replace does the work of CompareAndWrite. The caller holds the lock.
func (s *fileSink) replace(ctx context.Context, fsys durable.FS, path string, previous, token keywright.Secret) error {
	_ = durable.Sweep(fsys, filepath.Dir(path), filepath.Base(path), time.Now()) // what is left is swept next time
	content, held, err := s.read(fsys, path)
	if err != nil {
		return err
	}
	// A file that has the token already is written again: nobody knows whether
	// the one who wrote it came as far as to make it durable.
	if now := keywright.NewSecret(held); !now.Equal(previous) && !now.Equal(token) {
		return conflict(now)
	}
	next, err := s.next(content, token.Reveal())
	if err != nil {
		return err
	}
	return durable.Replace(ctx, fsys, path, next, durable.Options{Mode: s.mode})
}

// next returns content with token, and makes sure that it is found there.
func (s *fileSink) next(content []byte, token string) ([]byte, error) {
	next, err := s.format.set(content, token)
	if err != nil {
		return nil, err
	}
	if len(next) > s.limit {
		return nil, problem("would be too large with the token")
	}
	if back, err := s.format.get(next); err != nil || back != token {
		return nil, problem("cannot hold this token in a way that all its readers understand")
	}
	return next, nil
}

func (s *fileSink) Confirm(ctx context.Context, token keywright.Secret) error {
	now, err := s.Read(ctx)
	if e := new(Error); errors.As(err, &e) {
		e.Op = "confirm"
		return e
	}
	if token.IsZero() || !now.Token.Equal(token) {
		return s.fail("confirm", conflict(now.Token))
	}
	return nil
}

// Test implements [Tester]: it reads the file, tries out in memory whether a
// token can be set, and writes and removes a file beside it.
func (s *fileSink) Test(ctx context.Context) error {
	const op = "test"
	fsys := durable.FromContext(ctx)
	path, err := s.target(ctx, fsys)
	if err != nil {
		return s.fail(op, err)
	}
	content, _, err := s.read(fsys, path)
	if err != nil {
		return s.fail(op, err)
	}
	next, err := s.next(content, strings.Repeat("x", 4<<10)) // as long as a token may be
	if err != nil {
		return s.fail(op, err)
	}
	unlock, err := fsys.Lock(ctx, lockName(path), false)
	switch {
	case err == nil:
		_ = unlock()
	case !errors.Is(err, durable.ErrLocked): // that somebody has it does not say that it cannot be had
		return s.fail(op, err)
	}
	return s.fail(op, durable.Check(fsys, path, len(next), durable.Options{Mode: s.mode}))
}

// target returns the path of the file, with links resolved.
func (s *fileSink) target(ctx context.Context, fsys durable.FS) (string, error) {
	if s.invalid != nil {
		return "", s.invalid
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	return durable.Target(fsys, s.path, s.followLink)
}

func lockName(path string) string {
	dir, base := filepath.Split(path)
	return filepath.Join(dir, "."+base+".lock")
}

// read returns the content of the file, nil if there is none, and its token.
func (s *fileSink) read(fsys durable.FS, path string) ([]byte, string, error) {
	content, _, err := durable.Read(fsys, path, s.limit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	token, err := s.format.get(content)
	if err == nil && token != "" {
		if p := tokenProblem(token); p != "" {
			err = problem("what it holds is no token: " + p)
		}
	}
	return content, token, err
}

// conflict is a sink that holds now, which was not expected.
type conflict keywright.Secret

// Error says as much as may be said.
func (c conflict) Error() string {
	if keywright.Secret(c).IsZero() {
		return "holds no token"
	}
	return "holds another token than was expected"
}

// fail retells err as an error of this sink.
func (s *fileSink) fail(op string, err error) error {
	var wrong problem
	var other conflict
	var file *durable.Error
	e := &Error{Sink: s.name, Op: op, Err: err}
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrong):
		e.Reason, e.Err = string(wrong), ErrRefused
	case errors.As(err, &other):
		e.Reason, e.Err = other.Error(), ErrConflict
	case errors.As(err, &file):
		e.Reason = file.Reason
		if file.Path != s.path {
			e.Reason = file.Path + ": " + e.Reason
		}
		e.Err = withClass(err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		e.Reason = "gave up: " + err.Error()
	default:
		e.Reason, e.Err = "the lock cannot be taken: "+err.Error(), withClass(err)
	}
	return e
}

// withClass adds to an error of a file system the class that it belongs to.
func withClass(err error) error {
	for _, passing := range []error{syscall.ENOSPC, syscall.EDQUOT, durable.ErrLocked} {
		if errors.Is(err, passing) {
			return errors.Join(ErrTemporary, err)
		}
	}
	for _, lasting := range []error{durable.ErrRefused, fs.ErrPermission, fs.ErrNotExist, syscall.EROFS, syscall.ENOTDIR, syscall.ELOOP} {
		if errors.Is(err, lasting) {
			return errors.Join(ErrRefused, err)
		}
	}
	return err
}

// writable names what keeps a secret from being written as a token.
func writable(token keywright.Secret) problem {
	if token.IsZero() {
		return "there is no token to write"
	}
	if p := tokenProblem(token.Reveal()); p != "" {
		return problem("the token " + p)
	}
	return ""
}

// tokenProblem names what keeps a text from being a token.
func tokenProblem(s string) string {
	for i := range len(s) {
		switch c := s[i]; {
		case c == ' ':
			return "contains a space"
		case c == 0:
			return "contains a NUL byte"
		case c < 0x20 || c == 0x7f:
			return "contains a control character"
		case c > 0x7e:
			return "contains a character outside of ASCII"
		}
	}
	return ""
}

// plainFormat is a file with nothing but a token in it.
type plainFormat struct{}

func (plainFormat) get(content []byte) (string, error) {
	return string(bytes.Trim(content, " \t\r\n")), nil
}

func (plainFormat) set(_ []byte, token string) ([]byte, error) {
	return []byte(token + "\n"), nil
}

// Marks at the beginning and the end of lines.
const (
	byteOrderMark = "\ufeff"
	blanks        = " \t"
)

// checkText returns an error for a text that its readers would not agree
// about: where its lines end, or where it ends itself.
func checkText(content string) error {
	line := 1
	for i := range len(content) {
		switch c := content[i]; {
		case c == '\n':
			line++
		case c == 0:
			return atLine(line, "has a NUL byte; if the file is UTF-16, save it as UTF-8")
		case c == '\r' && (i+1 == len(content) || content[i+1] != '\n'):
			return atLine(line, "has a carriage return without a newline")
		}
	}
	return nil
}

// newline returns how lines end in content.
func newline(content string) string {
	if i := strings.IndexByte(content, '\n'); i > 0 && content[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

// endLine returns content with a newline at its end, unless it is empty.
func endLine(content string) string {
	if content == "" || content == byteOrderMark || strings.HasSuffix(content, "\n") {
		return content
	}
	return content + newline(content)
}
