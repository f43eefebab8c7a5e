package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/internal/durable"
)

// issued is where the secret goes that a command makes. The place is reserved
// before the call: what the provider has issued is in no other place.
type issued struct {
	a     *app
	path  string // --token-file
	force bool
	shown bool   // the provider shows it again: it needs no place
	again string // how to get another secret

	target   string      // path, checked
	replaces os.FileInfo // what is there, with --force
	reserved *os.File    // beside target, or for a rescue; as long as the longest token
	kept     bool        // the secret is in a file
}

// issuing defines the flags that say where a new secret goes.
func (a *app) issuing(c *cobra.Command) *issued {
	s := &issued{a: a, again: "rotate it to get a secret"}
	textVar(c.Flags(), &s.path, "token-file", "save the secret in `FILE`, which only you can read")
	c.Flags().BoolVar(&s.force, "force", false, "let --token-file replace a file")
	return s
}

// saving defines the same flags for a command that shows a secret which the
// provider has already.
func (a *app) saving(c *cobra.Command) *issued {
	s := a.issuing(c)
	s.shown = true
	return s
}

// reserve refuses to begin without a place for the secret, and makes room for
// it.
func (s *issued) reserve(c *cobra.Command) error {
	if s.path == "" {
		if s.force {
			return usage("--force is for --token-file")
		}
		if !s.a.reveal && !s.shown {
			return &usageError{
				reason: c.Name() + " makes a secret that has to go somewhere; nothing was sent",
				next:   "add --token-file FILE to save it, or --reveal to print it",
			}
		}
		if s.shown {
			return nil
		}
		if reason := s.a.unseen(); reason != "" {
			return &usageError{
				reason: reason + ", and the secret would be lost; nothing was sent",
				next:   "add --token-file FILE to save it",
			}
		}
		return s.reserveRescue(c)
	}
	if s.path == "-" {
		return usage(`--token-file: "-" is no file; to print the secret use --reveal`)
	}
	if os.IsPathSeparator(s.path[len(s.path)-1]) {
		return usage("--token-file: is a directory, and not a file")
	}
	var err error
	if s.target, err = durable.Target(durable.OS{}, s.path, false); err != nil {
		return usage("--token-file: %v", err)
	}
	if s.replaces, err = os.Lstat(s.target); err == nil && !s.force {
		return usage("--token-file: file exists; use --force to replace it")
	}
	dir, pattern := filepath.Dir(s.target), "."+filepath.Base(s.target)+".issued-*"
	sweepReserved(dir, pattern)
	if s.reserved, err = reserveFile(dir, pattern); err != nil {
		return usage("--token-file: %v", err)
	}
	return nil
}

// reserveRescue makes room for a secret that is to be printed, in case that it
// cannot be.
func (s *issued) reserveRescue(c *cobra.Command) error {
	s.reserved = reserveAny("secret")
	if s.reserved == nil && !hasTerminal() {
		return &usageError{
			reason: "if " + c.Name() + " could not print the secret, there would be no place to save it; nothing was sent",
			next:   "add --token-file FILE, or give it a directory to write to: XDG_STATE_HOME",
		}
	}
	return nil
}

// reserveAny makes a file with room for a secret in the first directory that
// allows it, and returns nil if none does.
func reserveAny(what string) *os.File {
	for _, dir := range rescueDirs() {
		if f, err := reserveFile(dir, "keywright-recovered-"+what+"-"+time.Now().UTC().Format("20060102T150405Z")+"-*.token"); err == nil {
			return f
		}
	}
	return nil
}

// hasTerminal reports whether a secret could be shown to somebody.
func hasTerminal() bool {
	tty, err := os.OpenFile(terminalDevice, os.O_WRONLY, 0)
	if err == nil {
		_ = tty.Close()
	}
	return err == nil
}

// sweepReserved removes what killed commands have reserved long ago and not
// used: files of our naming that hold nothing but zeros.
func sweepReserved(dir, pattern string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if ok, _ := filepath.Match(pattern, e.Name()); !ok {
			continue
		}
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || info.Size() != maxToken+1 || time.Since(info.ModTime()) < time.Hour {
			continue
		}
		path := filepath.Join(dir, e.Name())
		if b, err := os.ReadFile(path); err == nil && len(bytes.Trim(b, "\x00")) == 0 {
			_ = os.Remove(path)
		}
	}
}

// unseen says why nobody would see a secret on standard output.
func (a *app) unseen() string {
	if a.format == formatName {
		return "--output name prints no secrets"
	}
	out, err := a.out.Stat()
	if err != nil {
		return "standard output cannot be used"
	}
	// The runtime opens the null device in place of a stream that is closed.
	if null, err := os.Stat(os.DevNull); err == nil && os.SameFile(out, null) {
		return "standard output is closed or discarded"
	}
	return ""
}

// reserveFile makes a file of its own that has room for a secret.
func reserveFile(dir, pattern string) (*os.File, error) {
	f, err := os.CreateTemp(dir, pattern) // mode 0600
	if err != nil {
		return nil, err
	}
	if err = f.Chmod(0o600); err == nil { // whatever the umask
		_, err = f.Write(make([]byte, maxToken+1))
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		discard(f)
		return nil, err
	}
	return f, nil
}

func discard(f *os.File) {
	_ = f.Close()
	_ = os.Remove(f.Name())
}

// release gives back what was reserved and not used.
func (s *issued) release() {
	if s.reserved != nil {
		discard(s.reserved)
		s.reserved = nil
	}
}

// keep saves the secret of what was just made or rotated, and says where it is.
func (s *issued) keep(what string, secret keywright.Secret) error {
	if s.path == "" {
		return nil
	}
	f := s.reserved
	reserved, err := f.Stat()
	if err == nil {
		err = writeSecret(f, secret)
	}
	if err != nil {
		return s.rescue(what, secret, fmt.Errorf("--token-file: %w", err))
	}
	s.reserved = nil
	if err := s.place(f.Name()); err != nil {
		err = fmt.Errorf("--token-file: %w", err)
		if now, gone := os.Lstat(f.Name()); gone != nil || !os.SameFile(reserved, now) {
			return s.rescue(what, secret, err) // its directory went away
		}
		s.kept = true
		return s.settled(hint(err, "the secret is in "+f.Name()))
	}
	s.kept = true
	s.a.note("the secret is in %s", s.target)
	return nil
}

// place gives a file its name.
func (s *issued) place(temp string) error {
	dir := filepath.Dir(s.target)
	if s.force {
		if now, _ := os.Lstat(s.target); !sameFile(s.replaces, now) {
			return errors.New("somebody else has just written the file")
		}
		if err := durable.Rename(context.Background(), durable.OS{}, temp, s.target); err != nil {
			return err
		}
		return durable.OS{}.SyncDir(dir)
	}
	switch err := os.Link(temp, s.target); {
	case err == nil:
		_ = os.Remove(temp)
	case errors.Is(err, fs.ErrExist):
		return errors.New("somebody else has just made the file")
	default: // a file system without links
		if _, err := os.Lstat(s.target); err == nil {
			return errors.New("somebody else has just made the file")
		}
		if err := os.Rename(temp, s.target); err != nil {
			return err
		}
	}
	return durable.OS{}.SyncDir(dir)
}

// sameFile reports whether a file is still what it was; nil stands for none.
func sameFile(was, now os.FileInfo) bool {
	if was == nil || now == nil {
		return was == nil && now == nil
	}
	return os.SameFile(was, now) && was.ModTime().Equal(now.ModTime())
}

// settled returns an error of a secret that was saved, if not where it belongs:
// a call that issued it has changed something.
func (s *issued) settled(err error) error {
	if s.shown {
		return &coded{err, exitFailed}
	}
	return &coded{err, exitUnknown}
}

// rescue saves a secret that the provider would not show again. One that it
// would needs no rescue.
func (s *issued) rescue(what string, secret keywright.Secret, cause error) error {
	if s.shown {
		return &coded{cause, exitFailed}
	}
	return s.a.rescue(what, secret, cause)
}

// unreadable is what to say of a lost secret that the provider would not show.
const unreadable = "the provider does not show secrets: whether there is a new one cannot be seen, and it cannot be read"

// show reads something that has a secret, prints it, and saves the secret if
// that was asked for.
func show[T any](a *app, c *cobra.Command, s *issued, secret func(*T) keywright.Secret, read func() (*T, error)) error {
	if err := s.reserve(c); err != nil {
		return err
	}
	defer s.release()
	v, err := read()
	if err != nil {
		return err
	}
	return printIssued(a, s, v, secret(v))
}

// writeSecret makes a secret the content of a file with room for it.
func writeSecret(f *os.File, secret keywright.Secret) error {
	text := secret.Reveal() + "\n"
	_, err := f.WriteAt([]byte(text), 0)
	if err == nil {
		err = f.Truncate(int64(len(text)))
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// rescue keeps a secret that could not be put where it was asked for: in a file
// of its own, and if there is no place for one, on the terminal. It returns the
// error that says where it is.
func (a *app) rescue(what string, secret keywright.Secret, cause error) error {
	if err := rescueIn(reserveAny(what), secret, cause); err != nil {
		return err
	}
	if tty, err := os.OpenFile(terminalDevice, os.O_WRONLY, 0); err == nil {
		_, err = fmt.Fprintf(tty, "The secret could not be saved anywhere. It is shown here, and nowhere else:\n%s\n", secret.Reveal())
		if tty.Close(); err == nil {
			return &rescued{cause, "the secret was issued, could not be saved, and was shown on the terminal"}
		}
	}
	// A secret in a log can be replaced; one that is gone has locked you out.
	fmt.Fprintf(a.err, "keywright: the secret could not be saved anywhere, and there is no terminal; it is:\n%s\n", secret.Reveal())
	return &rescued{cause, "the secret was issued and is above: rotate it once it is saved"}
}

// rescueIn saves a secret in a file that was reserved, and returns the error that
// says where it is; nil if it could not be saved there.
func rescueIn(f *os.File, secret keywright.Secret, cause error) error {
	if f == nil {
		return nil
	}
	if writeSecret(f, secret) != nil {
		_ = os.Remove(f.Name())
		return nil
	}
	return &rescued{cause, "the secret was issued and is in " + f.Name()}
}

// rescued is an error after which a secret was put somewhere else than it
// belongs.
type rescued struct {
	err   error
	where string
}

func (e *rescued) Error() string { return e.err.Error() }

func (e *rescued) Unwrap() error { return e.err }

// rescueDirs are the directories for secrets that have no other place: the
// user's own first.
func rescueDirs() []string {
	var dirs []string
	state := os.Getenv("XDG_STATE_HOME")
	if home, err := os.UserHomeDir(); err == nil && !filepath.IsAbs(state) {
		state = filepath.Join(home, ".local", "state")
	}
	if filepath.IsAbs(state) {
		dir := filepath.Join(state, "keywright")
		if os.MkdirAll(dir, 0o700) == nil {
			dirs = append(dirs, dir)
		}
	}
	if wd, err := os.Getwd(); err == nil {
		dirs = append(dirs, wd)
	}
	return append(dirs, os.TempDir())
}

// printIssued keeps the secret of v and prints v. Whatever fails, the secret is
// in a file, or was shown.
func printIssued(a *app, s *issued, v any, secret keywright.Secret) error {
	r := recorder{reveal: a.reveal}.record(v)
	what := strings.ToLower(fmt.Sprintf("%T", v))
	what = what[strings.LastIndexByte(what, '.')+1:]
	if id := r.get("id"); id != nil {
		what += "-" + cell(id)
	}
	switch {
	case s.shown && s.path == "":
		return a.printOne(r)
	case secret.IsZero() && s.shown:
		return join(a.printOne(r), &coded{errors.New("the provider does not show the secret; nothing was saved"), exitFailed})
	case secret.IsZero():
		return hint(&coded{errors.New("the provider does not show the secret"), exitUnknown}, "it did what was asked; "+s.again)
	}
	if err := s.keep(what, secret); err != nil {
		return join(err, a.printOne(r))
	}
	err := a.printOne(r)
	if err == nil || s.kept {
		return err
	}
	f := s.reserved // what was kept ready for this
	s.reserved = nil
	if saved := rescueIn(f, secret, err); saved != nil {
		return saved
	}
	return a.rescue(what, secret, err)
}
