package cli

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/keywright/keywright"
	"github.com/keywright/keywright/internal/durable"
	"github.com/keywright/keywright/rotation/jobfile"
)

// Checks of what is the same for both providers.

func (d *doctor) home() {
	const check = "home directory"
	home, err := os.UserHomeDir()
	if err != nil || home == "" {
		d.warn(check, noHome, "set HOME, or name the config file with --config or RICLOUD_CONF")
		return
	}
	if info, err := os.Stat(home); err != nil || !info.IsDir() {
		d.warn(check, home+" is no directory", "set HOME")
		return
	}
	d.ok(check, "%s", home)
}

func (d *doctor) terminal() {
	const check = "terminal"
	switch {
	case d.a.interactive():
		d.ok(check, "questions can be asked")
	default:
		d.ok(check, "none: nothing is asked, and what destroys something needs --yes")
	}
}

func (d *doctor) clock(now time.Time) {
	const check = "system clock"
	if now.Year() < 2020 {
		d.wrong(exitFailed, check, "system clock is before 2020; webhook times cannot be checked", "set the clock, or let NTP do it")
		return
	}
	d.ok(check, "%s", now.UTC().Format(time.RFC3339))
}

// proxyVariables are those that net/http looks at for https. Plain http goes to
// this machine only, and never through a proxy.
var proxyVariables = [...]string{"HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"}

func (d *doctor) proxies() {
	const check = "proxy"
	var wrong *keywright.ConfigError
	// The client knows what it refuses. This one sends nothing.
	_, err := keywright.NewRicloud(keywright.WithoutEnvironment(), keywright.WithToken("keywright-doctor"))
	if errors.As(err, &wrong) && strings.EqualFold(wrong.Source, "HTTPS_PROXY") {
		d.noProxy = true
		d.wrong(exitUsage, check, wrong.Source+": "+wrong.Reason, "correct "+wrong.Source+", or unset it")
		return
	}
	var found []string
	for _, name := range proxyVariables {
		if v := os.Getenv(name); v != "" {
			if !strings.EqualFold(name, "NO_PROXY") {
				v = proxyName(v)
			}
			found = append(found, name+": "+v)
		}
	}
	if len(found) == 0 {
		d.ok(check, "none")
		return
	}
	d.ok(check, "%s", strings.Join(found, "; "))
}

// proxyName returns the host of a proxy, without its user and password.
func proxyName(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		u, err = url.Parse("http://" + text)
	}
	if err != nil {
		return notShown
	}
	name := proxyHost(u, u.Host)
	if u.User != nil && name != notShown {
		name += " (user info not shown)"
	}
	return name
}

const notShown = "(not shown)"

var plainHost = regexp.MustCompile(`^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?$`)

// proxyHost returns the host of a proxy, unless a part of a password could have
// come to be there.
func proxyHost(u *url.URL, host string) string {
	if !plainHost.MatchString(host) || u.User == nil && strings.Contains(u.String(), "@") {
		return notShown
	}
	return host
}

func (d *doctor) certificates() {
	const check = "certificates"
	file, dirs := os.Getenv("SSL_CERT_FILE"), os.Getenv("SSL_CERT_DIR")
	var found []string
	if file != "" {
		const mend = "name a file with certificates in PEM, or unset SSL_CERT_FILE"
		pem, err := os.ReadFile(file)
		switch {
		case err != nil:
			d.wrong(exitUsage, check, "SSL_CERT_FILE: "+plainReason(err), mend)
			return
		case !x509.NewCertPool().AppendCertsFromPEM(pem):
			d.wrong(exitUsage, check, "SSL_CERT_FILE: holds no certificate", mend)
			return
		}
		found = append(found, "SSL_CERT_FILE: "+file)
	}
	if dirs != "" {
		for _, dir := range strings.Split(dirs, string(os.PathListSeparator)) {
			if info, err := os.Stat(dir); err != nil || !info.IsDir() {
				d.warn(check, "SSL_CERT_DIR: one of its directories does not exist", "correct SSL_CERT_DIR, or unset it")
				return
			}
		}
		found = append(found, "SSL_CERT_DIR: "+dirs)
	}
	if len(found) == 0 {
		found = append(found, "those of the system")
	}
	d.ok(check, "%s", strings.Join(found, "; "))
}

// plainReason returns why a file cannot be had, without its name.
func plainReason(err error) string {
	var errno syscall.Errno
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "file does not exist"
	case errors.Is(err, fs.ErrPermission):
		return "permission denied"
	case errors.As(err, &errno):
		return errno.Error()
	}
	return "cannot be read"
}

func (d *doctor) jobFile() {
	const check = "job file"
	path := (&rotator{a: d.a}).file()
	f, err := jobfile.Load(path)
	var bad *jobfile.Error
	switch {
	case err == nil:
		d.ok(check, "%s, with %s", path, count(len(f.Jobs), "job"))
		d.jobs(f)
	case path == jobfile.DefaultName && errors.Is(err, fs.ErrNotExist):
		d.skip(check, "there is no %s in this directory", path)
	case errors.As(err, &bad):
		found, _, more := strings.Cut(bad.Error(), "\n")
		if more {
			found += fmt.Sprintf(" (and %d more)", len(bad.Problems)-1)
		}
		d.wrong(exitUsage, check, found, "see all that is wrong with it: keywright rotate plan")
	default:
		d.wrong(exitUsage, check, path+": "+plainReason(err), "correct "+envJobFile+", or unset it")
	}
}

// maxJobs bounds how many jobs of a file are looked at.
const maxJobs = 20

// jobs looks whether the jobs of a file could be run: whether their tokens are
// there, and, unless the network is to be left alone, what a plan would find.
func (d *doctor) jobs(f *jobfile.File) {
	engine, err := f.Open()
	var other *jobfile.DatabaseError
	if err != nil && !errors.As(err, &other) {
		d.wrong(exitUsage, "journal", trimmed(err), "correct the job file")
		return
	}
	d.journal(f, other)
	r := &rotator{a: d.a}
	for i := range min(len(f.Jobs), maxJobs) {
		name := f.Jobs[i].Name
		job, err := f.Job(name)
		if err == nil && !d.offline && engine != nil {
			ctx, cancel := d.within()
			_, err = engine.Plan(ctx, job)
			cancel()
		}
		switch {
		case err != nil:
			code := codeOf(err)
			if code == exitDone || code == exitInterrupted {
				code = exitFailed
			}
			d.wrong(code, "job "+name, trimmed(err), "see: "+r.command("plan", name))
		case engine == nil:
			d.skip("job "+name, "keywright-rotator works it")
		case d.offline:
			d.skip("job "+name, "--offline")
		default:
			d.ok("job "+name, "could be run")
		}
	}
	if more := len(f.Jobs) - maxJobs; more > 0 {
		d.skip("other jobs", "%d more were not looked at; see: %s", more, r.command("plan", "--all"))
	}
}

// journal says where the journal of a job file is. other is why it is not in the
// directory that it would be in, nil if it is.
func (d *doctor) journal(f *jobfile.File, other *jobfile.DatabaseError) {
	const check = "journal"
	switch {
	case other == nil:
		d.ok(check, "in %s", inWordsOf(f, f.JournalDir()))
	case other.Database == "":
		d.ok(check, "in a database, which keywright-rotator works")
	case f.Journal == "":
		d.ok(check, "in %s, which keywright-rotator works", inWordsOf(f, other.Database))
	default: // the file says something else
		d.warn(check, other.Message, other.Instead)
	}
}

// inWordsOf returns a path below a job file's directory as the path of the file
// is written, and any other as it is.
func inWordsOf(f *jobfile.File, path string) string {
	dir := filepath.Dir(f.Path)
	if abs, err := filepath.Abs(dir); err == nil {
		if rel, err := filepath.Rel(abs, path); err == nil && filepath.IsLocal(rel) {
			return filepath.Join(dir, rel)
		}
	}
	return path
}

// checkFile looks at one config file. If it is not read, because other places
// settle everything, what is wrong with it does not matter yet. It returns the
// token in the file.
func (d *doctor) checkFile(check, path string, must, used bool) (token keywright.Setting) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !must:
		d.skip(check, "%s does not exist", path)
		return token
	case err != nil:
		d.wrong(exitUsage, check, path+": "+plainReason(err), "name another, or make it: keywright config init")
		return token
	}
	settings, err := keywright.RicloudSettings(keywright.WithConfigFile(path), keywright.WithoutEnvironment())
	if err == nil {
		token = settings[0]
	}
	mend := "chmod 600 " + path
	if info.Mode().Perm()&0o077 == 0 {
		mend = "chown it, or name a file of your own"
	}
	problem := durable.PrivacyProblem(info)
	groupOnly := problem != "" && durable.PrivacyProblem(unread{info}) == ""
	switch {
	case problem != "" && !groupOnly:
		d.wrong(exitUsage, check, path+": "+problem, mend)
	case err != nil && used:
		d.wrong(exitUsage, check, trimmed(err), "correct the file; save a token with: keywright config init")
	case err != nil:
		d.warn(check, trimmed(err)+"; not read now", "correct the file; save a token with: keywright config init")
	case groupOnly:
		d.warn(check, fmt.Sprintf("%s: mode %04o lets its group read it", path, info.Mode().Perm()), mend+", unless it is mounted so")
	default:
		d.ok(check, "%s, mode %04o", path, info.Mode().Perm())
	}
	return token
}

// unread is a file as if its group could not read it, as containers mount files
// for users that do not own them.
type unread struct{ fs.FileInfo }

func (f unread) Mode() fs.FileMode { return f.FileInfo.Mode() &^ 0o040 }

// dialReason returns why a connection was not made.
func dialReason(err error) string {
	var (
		dns   *net.DNSError
		errno syscall.Errno
		n     net.Error
	)
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "host not found"
	case errors.As(err, &dns):
		return "the host's name could not be resolved"
	case errors.As(err, &n) && n.Timeout():
		return "timed out"
	case errors.As(err, &errno):
		return errno.Error()
	}
	return "no connection"
}

// proxyFor returns the proxy for a URL, or nil.
func proxyFor(u *url.URL) *url.URL {
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: u})
	if err != nil {
		return nil
	}
	return proxy
}

// addressOf returns where a URL is dialed.
func addressOf(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
	}
	if port == "" {
		port = "80"
	}
	return net.JoinHostPort(u.Hostname(), port)
}
