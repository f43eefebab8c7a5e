package store

import (
	"context"
	"database/sql"
	"errors"
	"iter"
	"math"
	"strings"
	"time"
)

// tables is a source: a database, in a transaction that keeps others out. It
// reads pages, because on SQLite nothing else can be asked while rows are open.
type tables struct{ tx *tx }

func (d *tables) identity(ctx context.Context) (string, error) { return identity(ctx, d.tx.row) }

// jobs returns those that only have a history, too, and the empty name of
// events that are of no job.
func (d *tables) jobs(ctx context.Context) ([]string, error) {
	var all []string
	err := d.each(ctx, func(scan func(...any) error) error {
		var job string
		err := scan(&job)
		all = append(all, job)
		return err
	}, `SELECT job FROM keywright_journal UNION SELECT job FROM keywright_audit UNION SELECT job FROM keywright_schedule
		UNION SELECT job FROM keywright_facts UNION SELECT job FROM keywright_runs UNION SELECT job FROM keywright_events ORDER BY job`)
	return all, err
}

// each calls f for every row of an answer.
func (d *tables) each(ctx context.Context, f func(scan func(...any) error) error, query string, args ...any) error {
	rows, err := d.tx.QueryContext(ctx, d.tx.d.rebind(query), d.tx.d.args(args)...)
	if err != nil {
		return d.tx.d.wrap(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows.Scan); err != nil {
			return d.tx.d.wrap(err)
		}
	}
	return d.tx.d.wrap(errors.Join(rows.Err(), rows.Close()))
}

func (d *tables) records(ctx context.Context, job string) (records, error) {
	var r records
	err := d.tx.row(ctx, `SELECT `+recordColumns+` FROM keywright_journal WHERE job = ?`, job).Scan(r.columns()...)
	if errors.Is(err, sql.ErrNoRows) {
		return records{}, nil
	}
	return r, d.tx.d.wrap(err)
}

func (d *tables) lines(ctx context.Context, job string) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for after, n := int64(math.MinInt64), page; n == page; {
			var lines [][]byte
			err := d.each(ctx, func(scan func(...any) error) error {
				var line []byte
				err := scan(&after, &line)
				lines = append(lines, line)
				return err
			}, `SELECT seq, line FROM keywright_audit WHERE job = ? AND seq > ? ORDER BY seq LIMIT ?`, job, after, page)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, line := range lines {
				if !yield(line, nil) {
					return
				}
			}
			n = len(lines)
		}
	}
}

// kind is what a column has.
type kind int

const (
	text kind = iota
	number
	when
)

// cell returns where a column is scanned to, and what returns the value then.
func (k kind) cell() (to any, value func() any) {
	switch k {
	case number:
		v := new(int64)
		return v, func() any { return *v }
	case when:
		v := new(time.Time)
		return moment{v}, func() any { return *v }
	}
	v := new(string)
	return v, func() any { return *v }
}

// table is one that is moved row by row.
type table struct {
	name    string
	key     string // column that rows are sorted by
	first   any    // less than any key
	columns string // all that are moved; the job is first
	kinds   []kind
}

var (
	scheduleTable = table{"keywright_schedule", "job", "", scheduleColumns,
		[]kind{text, when, text, text, when, text, text, number, when, when}}
	factsTable = table{"keywright_facts", "job", "", `job, run, generation, finished, issued, expires, looked`,
		[]kind{text, number, number, number, number, number, number}}
	runsTable = table{"keywright_runs", "id", int64(math.MinInt64), `job, operation, owner, started, finished, state, problem, resume_at`,
		[]kind{text, text, text, when, when, text, text, when}}
	eventsTable = table{"keywright_events", "id", int64(math.MinInt64), `job, operation, at, kind, state_from, state_to, sink, text`,
		[]kind{text, text, when, text, text, text, text, text}}
)

// row is a row of a table: its key, and its columns.
type row struct {
	key   any
	cells []any
}

// pages calls f with the rows of a table, a page at a time, except those of jobs
// in skip.
func (d *tables) pages(ctx context.Context, t *table, skip map[string]bool, f func([]row) error) error {
	for after, n := t.first, page; n == page; {
		n = 0
		var rows []row
		err := d.each(ctx, func(scan func(...any) error) error {
			key := text
			if t.key == "id" {
				key = number
			}
			to, value := key.cell()
			places, values := []any{to}, make([]func() any, len(t.kinds))
			for i, k := range t.kinds {
				to, values[i] = k.cell()
				places = append(places, to)
			}
			if err := scan(places...); err != nil {
				return err
			}
			n++
			after = value()
			r := row{key: after, cells: make([]any, len(values))}
			for i := range values {
				r.cells[i] = values[i]()
			}
			if job, ok := r.cells[0].(string); ok && !skip[job] {
				rows = append(rows, r)
			}
			return nil
		}, `SELECT `+t.key+`, `+t.columns+` FROM `+t.name+` WHERE `+t.key+` > ? ORDER BY `+t.key+` LIMIT ?`, after, page)
		if err != nil {
			return err
		}
		if err := f(rows); err != nil {
			return err
		}
	}
	return nil
}

func cellsOf(rows []row) [][]any {
	cells := make([][]any, len(rows))
	for i, r := range rows {
		cells[i] = r.cells
	}
	return cells
}

// rest implements source.
func (d *tables) rest(ctx context.Context, m *mover) error {
	runs, err := d.openRuns(ctx)
	if err != nil {
		return err
	}
	if err := d.moveRuns(ctx, m, runs); err != nil {
		return err
	}
	err = d.pages(ctx, &eventsTable, m.keep, func(rows []row) error {
		n, err := m.tx.insert(ctx, eventsTable.name, eventsTable.columns, cellsOf(rows), "")
		m.moved.Events += int(n)
		return err
	})
	if err != nil {
		return err
	}
	err = d.pages(ctx, &factsTable, m.keep, func(rows []row) error {
		for _, r := range rows {
			id, _ := r.cells[1].(int64)
			r.cells[1] = runs[id] // 0: the run is begun anew
		}
		_, err := m.tx.insert(ctx, factsTable.name, factsTable.columns, cellsOf(rows), ` ON CONFLICT (job) DO NOTHING`)
		return err
	})
	if err != nil {
		return err
	}
	return d.moveSchedule(ctx, m)
}

// openRuns returns the ids of the runs that are under way.
func (d *tables) openRuns(ctx context.Context) (map[int64]int64, error) {
	ids := make(map[int64]int64)
	err := d.each(ctx, func(scan func(...any) error) error {
		var id int64
		err := scan(&id)
		ids[id] = 0
		return err
	}, `SELECT run FROM keywright_facts WHERE run <> 0`)
	return ids, err
}

// moveRuns moves the history's runs, and notes the new ids of those in ids.
func (d *tables) moveRuns(ctx context.Context, m *mover, ids map[int64]int64) error {
	return d.pages(ctx, &runsTable, m.keep, func(rows []row) error {
		m.moved.Runs += len(rows)
		var waiting []row
		flush := func() error {
			_, err := m.tx.insert(ctx, runsTable.name, runsTable.columns, cellsOf(waiting), "")
			waiting = nil
			return err
		}
		for _, r := range rows {
			old, _ := r.key.(int64)
			if _, open := ids[old]; !open {
				waiting = append(waiting, r)
				continue
			}
			if err := flush(); err != nil {
				return err
			}
			var id int64
			places := `?` + strings.Repeat(`, ?`, len(r.cells)-1)
			if err := m.tx.row(ctx, `INSERT INTO keywright_runs (`+runsTable.columns+`) VALUES (`+places+`) RETURNING id`, r.cells...).Scan(&id); err != nil {
				return err
			}
			ids[old] = id
		}
		return flush()
	})
}

// moveSchedule moves the schedule. What is known of a job whose journal was
// moved comes with it.
func (d *tables) moveSchedule(ctx context.Context, m *mover) error {
	with := make(map[string]bool, len(m.moved.Jobs))
	for _, job := range m.moved.Jobs {
		with[job] = true
	}
	return d.pages(ctx, &scheduleTable, m.keep, func(rows []row) error {
		for _, r := range rows {
			if job, _ := r.cells[0].(string); with[job] {
				if _, err := m.tx.exec(ctx, `DELETE FROM keywright_schedule WHERE job = ?`, job); err != nil {
					return err
				}
			}
		}
		n, err := m.tx.insert(ctx, scheduleTable.name, scheduleTable.columns, cellsOf(rows), ` ON CONFLICT (job) DO NOTHING`)
		m.moved.Schedules += int(n)
		return err
	})
}
