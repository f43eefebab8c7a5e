package rotation

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/keywright/keywright/internal/durable"
)

// Sealer encrypts the tokens in a journal. label is bound to the sealed text:
// Open fails for another. A Sealer may use a key service; it is asked a few
// times per rotation.
type Sealer interface {
	Seal(ctx context.Context, plain []byte, label string) ([]byte, error)
	Open(ctx context.Context, sealed []byte, label string) ([]byte, error)
}

const sealKeySize = 32 // AES-256

// SealKeyFile returns a [Sealer] with the key in a file, which is made on first
// use with mode 0600. Keep it away from the journal's backups: together they
// are the tokens.
func SealKeyFile(path string) Sealer { return &keyFile{path: path} }

// SealKeyEnv returns a [Sealer] with the key in an environment variable: 64
// hexadecimal digits, such as from "openssl rand -hex 32".
func SealKeyEnv(variable string) Sealer { return keyEnv(variable) }

type keyFile struct {
	path string

	mu    sync.Mutex
	known []byte // once it was read
}

func (k *keyFile) Seal(ctx context.Context, plain []byte, label string) ([]byte, error) {
	key, err := k.key(ctx, true)
	if err != nil {
		return nil, err
	}
	return seal(key, plain, label)
}

func (k *keyFile) Open(ctx context.Context, sealed []byte, label string) ([]byte, error) {
	key, err := k.key(ctx, false) // a new key would open nothing
	if err != nil {
		return nil, err
	}
	return unseal(key, sealed, label)
}

// key returns the key, from the file when it is first used.
func (k *keyFile) key(ctx context.Context, create bool) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.known != nil {
		return k.known, nil
	}
	key, err := readKey(ctx, durable.FromContext(ctx), k.path, create)
	k.known = key
	return key, err
}

// readKey reads the key file. If there is none it may make one, under a lock
// beside it: of two processes that make one, both use the first.
func readKey(ctx context.Context, fsys durable.FS, path string, create bool) ([]byte, error) {
	b, info, err := durable.Read(fsys, path, 4<<10)
	switch {
	case errors.Is(err, fs.ErrNotExist) && create:
		b, err = makeKey(ctx, fsys, path)
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: its sealing key is gone: %w", ErrJournal, err)
	case err == nil && durable.PrivacyProblem(info) != "":
		return nil, fmt.Errorf("%w: %s %s", ErrJournal, path, durable.PrivacyProblem(info))
	}
	if err != nil {
		return nil, fmt.Errorf("rotation: sealing key: %w", err)
	}
	return parseKey(path, string(b))
}

func makeKey(ctx context.Context, fsys durable.FS, path string) ([]byte, error) {
	unlock, err := fsys.Lock(ctx, path+".lock", true)
	if err != nil {
		return nil, err
	}
	b, _, err := durable.Read(fsys, path, 4<<10)
	if errors.Is(err, fs.ErrNotExist) {
		key := make([]byte, sealKeySize)
		_, _ = rand.Read(key) // never fails
		b = []byte(hex.EncodeToString(key) + "\n")
		err = errors.Join(
			durable.Replace(ctx, fsys, path, b, durable.Options{}),
			durable.Sweep(fsys, filepath.Dir(path), filepath.Base(path), time.Now()))
	}
	return b, errors.Join(err, unlock())
}

type keyEnv string

func (k keyEnv) Seal(_ context.Context, plain []byte, label string) ([]byte, error) {
	key, err := parseKey(string(k), os.Getenv(string(k)))
	if err != nil {
		return nil, err
	}
	return seal(key, plain, label)
}

func (k keyEnv) Open(_ context.Context, sealed []byte, label string) ([]byte, error) {
	key, err := parseKey(string(k), os.Getenv(string(k)))
	if err != nil {
		return nil, err
	}
	return unseal(key, sealed, label)
}

func parseKey(source, text string) ([]byte, error) {
	key, err := hex.DecodeString(strings.TrimSpace(text))
	if err != nil || len(key) != sealKeySize {
		return nil, fmt.Errorf("%w: %s: want a sealing key of 64 hexadecimal digits", ErrJournal, source)
	}
	return key, nil
}

func gcm(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func seal(key, plain []byte, label string) ([]byte, error) {
	aead, err := gcm(key)
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, plain, []byte(label)), nil
}

func unseal(key, sealed []byte, label string) ([]byte, error) {
	aead, err := gcm(key)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nil, sealed, []byte(label))
	if err != nil {
		return nil, fmt.Errorf("%w: %s does not open with this sealing key", ErrJournal, label)
	}
	return plain, nil
}
