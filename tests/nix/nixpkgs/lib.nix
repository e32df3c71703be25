# nixpkgs' `lib`, in part.
let
  inherit (builtins)
    all
    any
    attrNames
    compareVersions
    concatStringsSep
    isPath
    listToAttrs
    map
    pathExists
    substring
    stringLength
    ;

  # A set of files is a list of paths; a path includes everything below it.
  isWithin =
    path: folder:
    path == folder || substring 0 (stringLength folder + 1) path == folder + "/";
in
rec {
  genAttrs =
    names: value:
    listToAttrs (
      map (name: {
        inherit name;
        value = value name;
      }) names
    );
  mapAttrsToList = function: set: map (name: function name set.${name}) (attrNames set);
  concatLines = lines: concatStringsSep "" (map (line: line + "\n") lines);
  optionalString = condition: string: if condition then string else "";
  versionAtLeast = version: least: compareVersions version least >= 0;
  importTOML = file: builtins.fromTOML (builtins.readFile file);
  getExe = package: "${package}/bin/${package.meta.mainProgram}";
  makeBinPath = packages: concatStringsSep ":" (map (package: "${package}/bin") packages);

  licenses.mit.spdxId = "MIT";
  platforms.linux = [
    "x86_64-linux"
    "aarch64-linux"
  ];

  fileset = {
    unions =
      sets:
      builtins.concatLists (
        map (
          set:
          if !isPath set then
            set
          else if pathExists set then
            [ set ]
          else
            throw "lib.fileset.unions: ${toString set} does not exist"
        ) sets
      );
    toSource =
      { root, fileset }:
      let
        wanted = map toString fileset;
      in
      assert all (path: isWithin path (toString root)) wanted;
      builtins.path {
        path = root;
        name = "source";
        filter = path: _: any (folder: isWithin path folder || isWithin folder path) wanted;
      };
  };
}
