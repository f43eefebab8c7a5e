package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"modernc.org/sqlite"

	"github.com/keywright/keywright/internal/durable"
	"github.com/keywright/keywright/rotation"
)

// Classes of errors, for errors.Is.
var (
	// ErrFenced: another session has taken the job over, and this one may
	// write nothing any more. It matches [rotation.ErrBusy] too.
	ErrFenced = fmt.Errorf("store: the right to the job is lost: %w", rotation.ErrBusy)
	// ErrVersion: the database was made by a newer program.
	ErrVersion = errors.New("store: the database is of a newer version")
	// ErrNotFound: there is no such row.
	ErrNotFound = errors.New("store: not found")
	// ErrFull: the database cannot grow.
	ErrFull = errors.New("store: no space left")
	// ErrClosed: the session, or the store, was closed.
	ErrClosed = errors.New("store: closed")
	// ErrLocked: another process works this database; see [Store.Exclusive].
	ErrLocked = errors.New("store: another process has the database")
	// ErrMoved: what was in the database is in another now; see [Store.MoveFrom].
	ErrMoved = errors.New("store: the journals were moved to another database")
	// ErrConflict: what is to be moved is there already, and differs; see
	// [ConflictError].
	ErrConflict = errors.New("store: the database has other journals of these jobs")
)

// BusyError says who has the right to a job. It matches [rotation.ErrBusy].
type BusyError struct {
	Job   string    // name of the job
	Owner string    // who has it, as given to [Store.Journal]; empty if that is not known
	Until time.Time // PostgreSQL: when the lease ends unless it is renewed, by the database's clock; else zero
}

// Error returns one line.
func (e *BusyError) Error() string {
	s := rotation.ErrBusy.Error() + " (" + e.Job
	if e.Owner != "" {
		s += ", by " + e.Owner
	}
	if !e.Until.IsZero() {
		s += ", until " + e.Until.Format(time.RFC3339)
	}
	return s + ")"
}

// Is matches [rotation.ErrBusy].
func (e *BusyError) Is(target error) bool { return target == rotation.ErrBusy }

// Defaults of the options.
const (
	// DefaultLease is how long a session on PostgreSQL has a job without a sign
	// of life.
	DefaultLease = 90 * time.Second
	// DefaultPatience is how long Save goes on while the database is away.
	DefaultPatience = 30 * time.Second
)

// Option configures a [Store].
type Option func(*Store) error

// WithLease sets how long a session on PostgreSQL has its job without a sign
// of life: [DefaultLease] if not given. It is renewed three times as often.
// SQLite has no lease.
func WithLease(d time.Duration) Option {
	return func(s *Store) error {
		if d < 10*time.Millisecond {
			return errors.New("store: a lease of less than 10 ms cannot be kept")
		}
		s.lease = d
		return nil
	}
}

// WithPatience sets how long a Save of a session goes on trying while the
// database is away or busy: [DefaultPatience] if not given. A Save may be of
// a token that is nowhere else; the engine gives it no other limit.
func WithPatience(d time.Duration) Option {
	return func(s *Store) error {
		if d <= 0 {
			return errors.New("store: patience must be positive")
		}
		s.patience = d
		return nil
	}
}

// WithLogger logs what goes wrong where no error can be returned: a lease that
// could not be renewed or given back, an event that could not be written.
func WithLogger(l *slog.Logger) Option {
	return func(s *Store) error {
		if l == nil {
			return errors.New("store: logger must not be nil")
		}
		s.log = l
		return nil
	}
}

// Store is an open database. It is safe for concurrent use, and for use beside
// other processes with the same database.
type Store struct {
	db   *sql.DB
	pool *pgxpool.Pool
	*dialect

	path     string
	file     fs.FileInfo // of path, when it was opened
	lease    time.Duration
	patience time.Duration
	log      *slog.Logger

	background context.Context // ends with Close
	stop       context.CancelFunc
	running    sync.WaitGroup

	mu     sync.Mutex
	held   map[string]*session // the latest session of each job
	closed bool                // nothing is added to running any more
}

func newStore(d *dialect, opts []Option) (*Store, error) {
	s := &Store{dialect: d, lease: DefaultLease, patience: DefaultPatience, log: slog.New(slog.DiscardHandler), held: make(map[string]*session)}
	for _, opt := range opts {
		if err := opt(s); err != nil {
			return nil, err
		}
	}
	s.background, s.stop = context.WithCancel(context.Background())
	return s, nil
}

// busyTimeout is how long SQLite waits for another process's write.
const busyTimeout = 10 * time.Second

// OpenSQLite opens the database in a file, which it makes with mode 0600 if
// there is none, in a directory that it makes with mode 0700 if there is none.
// A file or directory that lets others in, a file with a second name, and one
// that does not fit the log that is beside it are refused with an error that
// matches [rotation.ErrJournal]. One whose journals were moved is refused with
// [ErrMoved]. Beside the file are SQLite's own, with -wal
// and -shm, and the directory path.locks.
//
// All goroutines share one connection, and wait for each other: nothing may
// use the database while a transaction of its own is open, except through that
// transaction.
func OpenSQLite(ctx context.Context, path string, opts ...Option) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	s, err := newStore(sqliteDialect(), opts)
	if err != nil {
		return nil, err
	}
	s.path = path
	unlock, logged, err := s.prepare(ctx)
	if err != nil {
		s.stop()
		return nil, err
	}
	defer unlock()
	connector, err := sqliteConnector(path)
	if err != nil {
		s.stop()
		return nil, fmt.Errorf("store: %w", err)
	}
	s.db = sql.OpenDB(connector)
	s.db.SetMaxOpenConns(1)
	s.db.SetMaxIdleConns(1)
	var mode string
	if err = s.db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err == nil && mode != "wal" {
		err = fmt.Errorf("the file system of %s does not allow a write-ahead log (%s)", path, mode)
	}
	if err == nil && logged {
		err = s.check(ctx)
	}
	if err == nil {
		err = s.migrate(ctx)
	}
	if err != nil {
		return nil, errors.Join(s.wrap(err), s.Close())
	}
	return s, nil
}

// check looks for damage where a process has ended without a word: SQLite takes
// a log that is left for the file's own, even if a backup was put in its place.
func (s *Store) check(ctx context.Context) error {
	unlock, err := s.Exclusive(ctx)
	if errors.Is(err, ErrLocked) {
		return nil // the log is in use
	}
	if err != nil {
		return err
	}
	var found string
	err = s.db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&found)
	if err = errors.Join(err, unlock()); err == nil && found == "ok" {
		return nil
	}
	if err == nil || s.damaged(err) {
		return fmt.Errorf("%w: %s is damaged, or is not the file that %s-wal was written for: restore both from one backup, or the file alone without the other", rotation.ErrJournal, s.path, s.path)
	}
	return err
}

func sqliteConnector(path string) (driver.Connector, error) {
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(path), OmitHost: true}
	pragmas := url.Values{
		"_txlock": {"immediate"}, "_busy_timeout": {strconv.FormatInt(busyTimeout.Milliseconds(), 10)},
		"_journal_mode": {"WAL"}, "_synchronous": {"FULL"}, "_foreign_keys": {"on"},
		"_pragma": {"fullfsync(on)", "checkpoint_fullfsync(on)"}, // macOS needs it, others know none
	}
	return sqlite.NewConnector("file:" + u.EscapedPath() + "?" + pragmas.Encode())
}

// prepare makes the database's file and directories, and checks that they are
// ours alone. Until unlock is called no other process opens the database. logged
// reports whether there is a log from before.
func (s *Store) prepare(ctx context.Context) (unlock func() error, logged bool, err error) {
	fsys := durable.OS{}
	for _, dir := range [...]string{filepath.Dir(s.path), s.locks()} {
		if err := fsys.Mkdir(dir); err != nil {
			return nil, false, fmt.Errorf("store: %w", err)
		}
		if err := durable.CheckPrivate(fsys, dir); err != nil {
			return nil, false, fmt.Errorf("%w: %w", rotation.ErrJournal, err)
		}
	}
	unlock, err = fsys.Lock(ctx, filepath.Join(s.locks(), ".open"), true)
	if err != nil {
		return nil, false, fmt.Errorf("store: %w", err)
	}
	if logged, err = s.prepareFiles(fsys); err != nil {
		return nil, false, errors.Join(err, unlock())
	}
	return unlock, logged, nil
}

func (s *Store) prepareFiles(fsys durable.FS) (logged bool, err error) {
	f, err := fsys.Create(s.path)
	switch {
	case err == nil:
		if err := errors.Join(f.Chmod(0o600), f.Sync(), f.Close(), fsys.SyncDir(filepath.Dir(s.path))); err != nil {
			return false, fmt.Errorf("store: %w", err)
		}
	case !errors.Is(err, fs.ErrExist):
		return false, fmt.Errorf("store: %w", err)
	}
	for _, suffix := range [...]string{"", "-wal", "-shm"} {
		info, err := fsys.Lstat(s.path + suffix)
		if errors.Is(err, fs.ErrNotExist) && suffix != "" {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("store: %w", err)
		}
		if !info.Mode().IsRegular() {
			return false, fmt.Errorf("%w: %s is not a regular file", rotation.ErrJournal, s.path+suffix)
		}
		if names(info) > 1 {
			return false, fmt.Errorf("%w: %s has another name, a hard link, under which somebody else may have it open", rotation.ErrJournal, s.path+suffix)
		}
		switch suffix {
		case "":
			s.file = info
		case "-wal":
			logged = info.Size() > 0
		}
		if problem := durable.PrivacyProblem(info); problem != "" {
			return false, fmt.Errorf("%w: %s %s", rotation.ErrJournal, s.path+suffix, problem)
		}
	}
	return logged, nil
}

// inPlace fails if SQLite's file is not the one any more that was opened: what is
// written to it then is lost with the last process that has it open.
func (s *Store) inPlace() error {
	if s.path == "" {
		return nil
	}
	info, err := durable.OS{}.Lstat(s.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("store: %w", err)
	}
	if err != nil || !os.SameFile(info, s.file) {
		return fmt.Errorf("%w: %s was removed or replaced since it was opened: open it anew", rotation.ErrJournal, s.path)
	}
	return nil
}

// locks is the directory of the jobs' locks.
func (s *Store) locks() string { return s.path + ".locks" }

// OpenPostgres opens the PostgreSQL database that a connection string names:
// a URL, or words such as "host=… dbname=…". What the string leaves out comes
// from the PG… variables of the environment, and pgxpool's settings, such as
// pool_max_conns, may be in it. One whose journals were moved is refused with
// [ErrMoved], and so is a pooler in transaction or statement mode, such as
// PgBouncer's: what a connection keeps there is another's at the next
// transaction. Errors do not repeat the string, which may hold a password.
func OpenPostgres(ctx context.Context, connection string, opts ...Option) (*Store, error) {
	config, err := pgxpool.ParseConfig(connection)
	if err != nil {
		// The error's text shows parts of what it could not take apart.
		return nil, errors.New("store: the PostgreSQL connection string cannot be read: want postgres://user@host:port/database")
	}
	if config.ConnConfig.RuntimeParams["application_name"] == "" {
		config.ConnConfig.RuntimeParams["application_name"] = "keywright"
	}
	config.AfterConnect = isolate
	s, err := newStore(postgresDialect(), opts)
	if err != nil {
		return nil, err
	}
	if s.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		s.stop()
		return nil, fmt.Errorf("store: %w", err)
	}
	s.db = stdlib.OpenDBFromPool(s.pool)
	if err = s.checkPooler(ctx); err == nil {
		err = s.migrate(ctx)
	}
	if err != nil {
		return nil, errors.Join(s.wrap(err), s.Close())
	}
	return s, nil
}

// isolate makes a connection's statements see what was committed before them,
// whatever the role or the database has set: one that waited must not go by what
// was true before. It is no parameter of the connection's start, which poolers
// refuse.
func isolate(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, `SELECT set_config('default_transaction_isolation', 'read committed', false)
		WHERE current_setting('default_transaction_isolation') <> 'read committed'`)
	return err
}

// reconnect gives the connections up after an error that says that their server
// takes no writes: another may be there for new ones.
func (s *Store) reconnect(err error) {
	if s.pool != nil && postgresCode(err, "25006") {
		s.pool.Reset()
	}
}

// SQL returns the database. On PostgreSQL it takes its connections from
// [Store.Pool].
func (s *Store) SQL() *sql.DB { return s.db }

// Pool returns the pool of connections to PostgreSQL, nil on SQLite.
func (s *Store) Pool() *pgxpool.Pool { return s.pool }

// Rebind returns a statement for [Store.SQL] whose parameters are written as ?,
// as the database wants them. Question marks in quotes stay.
func (s *Store) Rebind(query string) string { return s.rebind(query) }

// Path returns the absolute path of the SQLite file, "" on PostgreSQL.
func (s *Store) Path() string { return s.path }

// Exclusive takes a lock that one process at a time has, and that ends with
// the process: on SQLite the kernel's, beside the database. It returns
// [ErrLocked] at once if another has it. On PostgreSQL, which many processes
// work together, it does nothing.
func (s *Store) Exclusive(ctx context.Context) (unlock func() error, err error) {
	if s.path == "" {
		return func() error { return nil }, nil
	}
	unlock, err = durable.OS{}.Lock(ctx, filepath.Join(s.locks(), ".process"), false)
	if errors.Is(err, durable.ErrLocked) {
		return nil, ErrLocked
	}
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return unlock, nil
}

// Ping asks the database whether it is there.
func (s *Store) Ping(ctx context.Context) error {
	var one int
	return s.wrap(s.db.QueryRowContext(ctx, "SELECT 1").Scan(&one))
}

// Close closes the database. Sessions and recorders must be closed before;
// a session that is not loses its job as if the process had died. On
// PostgreSQL it waits until every connection is back in the pool.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.running.Wait()
	s.mu.Lock()
	open := s.held
	s.held = make(map[string]*session)
	s.mu.Unlock()
	var errs []error
	for _, session := range open {
		errs = append(errs, session.abandon())
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	if s.pool != nil {
		s.pool.Close()
	}
	return errors.Join(errs...)
}

// inTx runs do in a transaction.
func (s *Store) inTx(ctx context.Context, do func(*tx) error) error {
	t, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return s.wrap(err)
	}
	defer func() { _ = t.Rollback() }() // after a commit it does nothing
	if s.beginTx != "" {
		if _, err := t.ExecContext(ctx, s.beginTx); err != nil {
			return s.wrap(err)
		}
	}
	if err := do(&tx{t, s.dialect}); err != nil {
		return s.wrap(err)
	}
	return s.wrap(t.Commit())
}

// tx is a transaction whose statements have ? for parameters.
type tx struct {
	*sql.Tx
	d *dialect
}

func (t *tx) exec(ctx context.Context, query string, args ...any) (int64, error) {
	r, err := t.ExecContext(ctx, t.d.rebind(query), t.d.args(args)...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

func (t *tx) row(ctx context.Context, query string, args ...any) *sql.Row {
	return t.QueryRowContext(ctx, t.d.rebind(query), t.d.args(args)...)
}

func (s *Store) exec(ctx context.Context, query string, args ...any) (int64, error) {
	r, err := s.db.ExecContext(ctx, s.rebind(query), s.args(args)...)
	if err != nil {
		return 0, s.wrap(err)
	}
	n, err := r.RowsAffected()
	return n, s.wrap(err)
}

func (s *Store) row(ctx context.Context, query string, args ...any) *sql.Row {
	return s.db.QueryRowContext(ctx, s.rebind(query), s.args(args)...)
}

// rows calls each for every row of an answer.
func (s *Store) rows(ctx context.Context, each func(scan func(...any) error) error, query string, args ...any) error {
	rows, err := s.db.QueryContext(ctx, s.rebind(query), s.args(args)...)
	if err != nil {
		return s.wrap(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(rows.Scan); err != nil {
			return s.wrap(err)
		}
	}
	return s.wrap(rows.Err())
}
