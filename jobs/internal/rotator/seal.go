package rotator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/keywright/keywright/jobs/store"
	"github.com/keywright/keywright/rotation"
	"github.com/keywright/keywright/rotation/jobfile"
)

// sealName is the file of the sealing key beside a SQLite database, if the file
// of the jobs names none.
const sealName = "keywright.seal"

// sealerOf returns what seals the tokens in the journal.
func sealerOf(f *jobfile.File, d database) (rotation.Sealer, error) {
	if s := f.Sealer(); s != nil {
		// One that a worker makes for itself is not that of the others.
		if path := sealFile(f, d); path != "" && d.path == "" {
			if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
				return nil, &usageError{
					reason: fmt.Sprintf("the sealing key %s is not there; on PostgreSQL all workers need the same", path),
					next:   fmt.Sprintf("make one, once, and give it to every worker: (umask 077; openssl rand -hex 32 >%s)", quoted(path)),
				}
			}
		}
		return s, nil
	}
	if d.path == "" {
		return nil, &usageError{
			reason: f.Path + ": seal_key is missing; on PostgreSQL all workers need the same sealing key, and the database must not have it",
			next:   "write seal_key: {file: PATH} or seal_key: {env: VARIABLE}; openssl rand -hex 32 makes a key",
		}
	}
	return rotation.SealKeyFile(sealFile(f, d)), nil
}

// sealFile returns the path of the sealing key; empty: it is in no file.
func sealFile(f *jobfile.File, d database) string {
	switch k := f.SealKey; {
	case k == nil && d.path != "":
		return filepath.Join(filepath.Dir(d.path), sealName)
	case k == nil || k.File == "":
		return ""
	case filepath.IsAbs(k.File):
		return filepath.Clean(k.File)
	default:
		return filepath.Join(dirOf(f), k.File)
	}
}

// dirOf is the directory that a file's paths are relative to.
func dirOf(f *jobfile.File) string {
	path, err := filepath.Abs(f.Path)
	if err != nil {
		path = f.Path
	}
	return filepath.Dir(path)
}

// checkKey refuses to make a new sealing key for a journal that has one: what was
// sealed with that could not be opened.
func checkKey(ctx context.Context, f *jobfile.File, d database, st *store.Store) error {
	path := sealFile(f, d)
	if path == "" {
		return nil
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil // what is wrong with it is found out when it is used
	}
	journal := st.Journal(name)
	for i := range f.Jobs {
		record, err := journal.Peek(ctx, f.Jobs[i].Name)
		if err != nil && !errors.Is(err, rotation.ErrJournal) {
			return err
		}
		if record != nil || err != nil {
			return &usageError{
				reason: fmt.Sprintf("the sealing key %s is not there, but the database has the journal of %s, which was written with one", path, f.Jobs[i].Name),
				next:   fmt.Sprintf("put it back, or, if it is lost and no rotation is under way, make another: (umask 077; openssl rand -hex 32 >%s)", quoted(path)),
			}
		}
	}
	return nil
}
