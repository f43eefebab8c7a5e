package cli

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"

	"golang.org/x/term"

	"github.com/keywright/keywright"
)

// isTerminal reports whether a person is at the other end of f.
func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// Widths of output, in columns.
const (
	unlimited    = 1 << 20 // off a terminal nothing is fitted to a width
	defaultWidth = 80
)

// width returns how many columns there are to print in.
func (a *app) width() int {
	if !isTerminal(a.out) {
		return unlimited
	}
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 0 {
		return n
	}
	if n, _, err := term.GetSize(int(a.out.Fd())); err == nil && n > 0 {
		return n
	}
	return defaultWidth
}

// color is a colour or weight of text on a terminal.
type color string

const (
	bold   color = "1"
	dim    color = "2"
	red    color = "31"
	green  color = "32"
	yellow color = "33"
)

// colored reports whether f shows colours: it is a terminal, and nobody has
// asked for none (https://no-color.org).
func colored(f *os.File) bool {
	return isTerminal(f) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// style colours text for standard error.
func (a *app) style(c color, text string) string { return paint(colored(a.err), c, text) }

func paint(on bool, c color, text string) string {
	if !on || c == "" || text == "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// interactive reports whether questions can be asked: standard input and
// standard error are a terminal.
func (a *app) interactive() bool { return isTerminal(a.in) && isTerminal(a.err) }

// ask asks a question and returns the line that is typed. Without one the
// default is returned.
func (a *app) ask(question, byDefault string) (string, error) {
	if byDefault != "" {
		question += " [" + byDefault + "]"
	}
	fmt.Fprint(a.err, question+": ")
	line, err := a.readLine()
	if err != nil {
		return "", err
	}
	if line = strings.TrimSpace(line); line == "" {
		return byDefault, nil
	}
	return line, nil
}

// readLine reads a line of standard input, and gives up when interrupted.
func (a *app) readLine() (string, error) {
	type result struct {
		line string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		if a.lines == nil {
			a.lines = bufio.NewReader(a.in)
		}
		line, err := a.lines.ReadString('\n')
		if err == io.EOF && line != "" {
			err = nil
		}
		done <- result{line, err}
	}()
	select {
	case r := <-done:
		if r.err == io.EOF {
			return "", usage("standard input ended before the question was answered")
		}
		return strings.TrimRight(r.line, "\r\n"), r.err
	case <-a.ctx.Done():
		fmt.Fprintln(a.err)
		return "", a.ctx.Err()
	}
}

// askSecret asks for a secret, which is not shown while it is typed.
func (a *app) askSecret(question string) (keywright.Secret, error) {
	if !a.interactive() {
		return keywright.Secret{}, usage("a secret is asked for on a terminal only")
	}
	fd := int(a.in.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return keywright.Secret{}, err
	}
	type result struct {
		text []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		text, err := term.ReadPassword(fd)
		done <- result{text, err}
	}()
	awaitChange(fd, before) // what is typed from the question on must be hidden
	fmt.Fprint(a.err, question+": ")
	select {
	case r := <-done:
		fmt.Fprintln(a.err)
		if r.err != nil && r.err != io.EOF {
			return keywright.Secret{}, r.err
		}
		text := strings.TrimSpace(string(r.text))
		if text == "" {
			return keywright.Secret{}, usage("nothing was typed")
		}
		return keywright.NewSecret(text), nil
	case <-a.ctx.Done():
		_ = term.Restore(fd, before)
		fmt.Fprintln(a.err)
		return keywright.Secret{}, a.ctx.Err()
	}
}

// awaitChange waits until a terminal is set otherwise than before. It does not
// wait long: the terminal may have been set so already.
func awaitChange(fd int, before *term.State) {
	for range 100 {
		if now, err := term.GetState(fd); err != nil || *now != *before {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// note says something on standard error that a program does not need to know.
func (a *app) note(format string, args ...any) {
	if !a.quiet {
		fmt.Fprintln(a.err, printable(fmt.Sprintf(format, args...)))
	}
}

// printable escapes what a terminal would act on: control characters, and those
// that change the direction of text. Providers' words and names are not to be
// trusted with a terminal.
func printable(s string) string {
	if strings.IndexFunc(s, hostile) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if hostile(r) {
			for _, unit := range utf16.Encode([]rune{r}) { // as JSON has it
				fmt.Fprintf(&b, `\u%04x`, unit)
			}
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// printableLines is printable for text of several lines.
func printableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = printable(l)
	}
	return strings.Join(lines, "\n")
}

// hostile reports whether a character controls a terminal, changes direction, or
// cannot be seen.
func hostile(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) }
