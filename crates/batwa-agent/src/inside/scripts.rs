//! What runs inside VMs to move files: POSIX shell with the programs that every system has, busybox' too.
//!
//! Names come as arguments, never as part of a script. Each script ends with one of [`code`]'s numbers when it cannot
//! do its work.

/// How the scripts say why they did not do their work.
pub(super) mod code {
    pub(crate) const NO_FILE: i32 = 41;
    pub(crate) const IS_FOLDER: i32 = 42;
    pub(crate) const NOT_ALLOWED: i32 = 43;
    pub(crate) const NO_FOLDER_AT: i32 = 44;
    pub(crate) const OFFSET: i32 = 45;
    pub(crate) const SPECIAL: i32 = 46;
    pub(crate) const NO_PARENT: i32 = 47;
    pub(crate) const INCOMPLETE: i32 = 48;
    pub(crate) const CHECKSUM: i32 = 49;
}

/// `$1` path, `$2` offset, `$3` entity tag that the offset belongs to, `$4` `1` for a checksum, `$5` `1` for content.
/// Prints `mode size time tag checksum offset`, a line, and then the content from there.
pub(super) const READ: &str = r#"p=$1; case $p in /*) ;; *) p=./$p ;; esac
if ! [ -e "$p" ]; then
  case $(LC_ALL=C ls -d "$p" 2>&1) in *[Pp]ermission*) exit 43 ;; esac
  exit 41
fi
[ -d "$p" ] && exit 42
[ -f "$p" ] || exit 46
[ -r "$p" ] || exit 43
s=$(stat -L -c '%a %s %Y %i' "$p") || exit 1
set -- "$p" "$2" "$3" "$4" "$5" $s
tag=$7-$8-$9
off=$2
[ -n "$3" ] && [ "$3" != "$tag" ] && off=0
sum=-
if [ "$4" = 1 ]; then sum=$(sha256sum "$p") || exit 1; sum=${sum%% *}; sum=${sum#\\}; fi
[ "$off" -le "$7" ] || off=$7
printf '%s\n' "$6 $7 $8 $tag $sum $off"
[ "$5" = 1 ] || exit 0
if [ "$off" = 0 ]; then exec cat "$p"; fi
exec tail -c "+$((off + 1))" "$p""#;

/// `$1` path of a folder. Prints a line, and then the folder's content as tar.
pub(super) const PACK: &str = r#"p=$1; case $p in /*) ;; *) p=./$p ;; esac
[ -e "$p" ] || exit 41
[ -d "$p" ] || exit 44
[ -r "$p" ] && [ -x "$p" ] || exit 43
echo
exec tar -C "$p" -cf - ."#;

/// `$1` path of a folder, `$2` `1` to make its parents. Unpacks tar from standard input into it.
pub(super) const UNPACK: &str = r#"p=$1; case $p in /*) ;; *) p=./$p ;; esac
if [ -e "$p" ]; then
  [ -d "$p" ] || exit 44
elif [ "$2" = 1 ]; then
  mkdir -p "$p" || exit 43
else
  d=$(dirname "$p"); [ -d "$d" ] || exit 47
  mkdir "$p" || exit 43
fi
[ -w "$p" ] || exit 43
exec tar -C "$p" -xf -"#;

/// The beginning of those that write: `$1` path, `$2` the upload's id; leaves the path in `p`, where parts are held in
/// `t`.
macro_rules! part {
    ($rest:literal) => {
        concat!(
            r#"p=$1; case $p in /*) ;; *) p=./$p ;; esac
[ -L "$p" ] && p=$(readlink -f "$p")
d=$(dirname "$p"); t=$d/.batwa-$2.part
"#,
            $rest
        )
    };
}

/// `$3` offset, `$4` `1` to make parents. Appends standard input to the part, which must be that long.
pub(super) const WRITE: &str = part!(
    r#"[ -d "$p" ] && exit 42
[ -e "$p" ] && ! [ -f "$p" ] && exit 46
if ! [ -d "$d" ]; then
  [ "$4" = 1 ] || exit 47
  mkdir -p "$d" || exit 43
fi
[ -w "$d" ] || exit 43
umask 077
if [ "$3" = 0 ]; then
  : >"$t" || exit 1
else
  have=$(stat -c %s "$t" 2>/dev/null) || have=0
  [ "$have" = "$3" ] || exit 45
fi
exec cat >>"$t""#
);

/// Prints how long the part is.
pub(super) const HELD: &str =
    part!(r#"stat -c %s "$t" 2>/dev/null || { [ -d "$d" ] && [ -x "$d" ] && echo 0; } || exit 47"#);

/// `$3` size, `$4` mode, `$5` checksum; each may be empty. Puts the part in its place and prints `size checksum`.
pub(super) const FINISH: &str = part!(
    r#"have=$(stat -c %s "$t" 2>/dev/null) || exit 41
[ -z "$3" ] || [ "$have" = "$3" ] || exit 48
sum=$(sha256sum "$t") || exit 1; sum=${sum%% *}; sum=${sum#\\}
if [ -n "$5" ] && [ "$sum" != "$5" ]; then rm -f "$t"; exit 49; fi
mode=$4
[ -n "$mode" ] || mode=$(stat -L -c %a "$p" 2>/dev/null) || mode=$(printf %o "$((0666 & ~$(umask)))")
chmod "$mode" "$t" && mv -f "$t" "$p" || exit 43
printf '%s\n' "$have $sum""#
);

/// Removes the part.
pub(super) const DISCARD: &str = part!(r#"rm -f "$t""#);
